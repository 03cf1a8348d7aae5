"""A process holds one model at a time, and a batch that ran out of memory leaves none of it to its halves."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from echo_targets.jobs.commands.run import job_of
from echo_targets.jobs.config import load
from echo_targets.pipeline import worker_transform
from echo_targets.pipeline.halving import work
from echo_targets.pipeline.runners.base import Failed
from echo_targets.pipeline.stage import StageSpec
from echo_targets.pipeline.worker_transform import Loaded, load_transform, unload_transform
from echo_targets.schemas import KEY
from echo_targets.transforms.base import Output
from tests.pipeline.stand_ins import Double, Follow, Inline, stage
from tests.pipeline.test_isolation import batch


@pytest.fixture(autouse=True)
def fresh_worker() -> Iterator[None]:
    unload_transform()
    yield
    unload_transform()


# -- models ------------------------------------------------------------------------------------------------------------


def models_of(transform: object) -> list[weakref.ref[Any]]:
    """Every model of torch, CTranslate2 or hama that can be reached from a transform.

    measure has only the voice activity detector, which faster-whisper keeps: 2 MB, on the CPU.
    """
    import ctranslate2
    import torch
    from hama._engine import AsrSession, DecoderSession, EncoderSession

    kinds = (torch.nn.Module, ctranslate2.models.Whisper, AsrSession, EncoderSession, DecoderSession)
    found, seen, left = list[weakref.ref[Any]](), set[int](), [transform]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, ModuleType | FunctionType | type):
            continue
        seen.add(id(one))
        if isinstance(one, kinds):
            found.append(weakref.ref(one))
        left += gc.get_referents(one)
    return found


@pytest.mark.slow
def test_each_stage_starts_when_the_models_of_the_last_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: list[dict[str, Any]]
) -> None:
    models = dict[str, list[weakref.ref[Any]]]()
    left = dict[str, list[str]]()

    class Watching(Loaded):
        def __init__(self, spec: StageSpec) -> None:
            for name, before in models.items():
                left.setdefault(name, []).extend(type(model()).__name__ for model in before if model() is not None)
            super().__init__(spec)
            models[f"{self.transform.name}{len(models)}"] = models_of(self.transform)

    monkeypatch.setattr(worker_transform, "Loaded", Watching)
    manifest = tmp_path / "manifest.jsonl"
    row = {name: speech[0][name] for name in ("id", "text")} | {"audio": str(speech[0]["audio"]), "dialogue_id": "d"}
    lines = [row | {"turn": 0}, row | {"turn": 1, "id": "reply", "text": "Where is the red book?"}]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    for number, echo in enumerate(
        (["model=embedded:nano-t2c"], ["model=embedded:echox-nano", "text=hidden", "reader=embedded:unit-reader"])
    ):
        overrides = [f"stages.echo.{one}" for one in echo]
        place = [f"manifest={manifest}", f"root={tmp_path / str(number)}", "max_reject_fraction=1", "allow_empty=true"]
        events = list(job_of(load("folder", [*place, *overrides])).run(Inline()))
        assert not [event for event in events if isinstance(event, Failed)]
    unload_transform()
    with_models = {name.rstrip("0123456789") for name, found in models.items() if found}
    assert with_models == {"transcribe", "align", "tokenize", "echo"}
    assert {name: names for name, names in left.items() if names} == {}
    assert all(model() is None for found in models.values() for model in found)


def test_ctranslate2s_model_is_unloaded_with_its_recognizer() -> None:
    from echo_targets.transforms.models.asr.faster_whisper import FasterWhisper

    recognizer = FasterWhisper("embedded:tiny.en", "cpu", "en", 5, "float32", "int8")
    recognizer.setup()
    model = recognizer._decoder
    assert model.model_is_loaded
    del recognizer
    gc.collect()
    assert not model.model_is_loaded, "its cache on a GPU is emptied only by this"


class Torch(ModuleType):
    """Stands in for torch with a GPU; counts how often its cache is emptied."""

    def __init__(self, is_initialized: bool = True) -> None:
        super().__init__("torch")
        self.cuda = self
        self.emptied = 0
        self.is_initialized = lambda: is_initialized

    def empty_cache(self) -> None:
        self.emptied += 1


def test_the_gpus_cache_is_emptied_between_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    load_transform(stage(Double))
    load_transform(stage(Double))
    assert torch.emptied == 0, "the model stays loaded from shard to shard"
    load_transform(stage(Follow))
    assert torch.emptied == 1


# -- batches -----------------------------------------------------------------------------------------------------------


class Knot:
    """Memory in a reference cycle, as tracebacks and networks form them."""

    def __init__(self) -> None:
        self.itself, self.memory = self, np.empty(1_000)


class Full(Double):
    """Runs out of memory with more than one row; notes what is left of earlier batches when one starts."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.allocated = list[weakref.ref[Any]]()
        self.left = list[int]()

    def __call__(self, batch: pa.Table) -> Output:
        self.left.append(sum(one() is not None for one in self.allocated))
        plain, knot = np.empty(1_000), Knot()
        self.allocated += [weakref.ref(plain), weakref.ref(knot)]
        if len(batch) > 1:
            raise RuntimeError(f"CUDA out of memory. Tried to allocate {len(batch)} GiB")
        return super().__call__(batch)


@pytest.mark.parametrize("initialized", [True, False])
def test_the_memory_of_a_batch_is_free_when_its_halves_run(monkeypatch: pytest.MonkeyPatch, initialized: bool) -> None:
    torch = Torch(initialized)
    monkeypatch.setitem(sys.modules, "torch", torch)
    loaded = Loaded(stage(Double))
    full = loaded.transform = Full(Double.Parameters())
    gc.collect()
    gc.disable()  # otherwise it may collect by itself
    try:
        outputs = list(work(loaded, batch(4)))
    finally:
        gc.enable()
    assert [key for output in outputs for key in output.rows[KEY].to_pylist()] == batch(4)[KEY].to_pylist()
    assert [full.left[place] for place in (1, 2, 5)] == [0, 0, 0], "the batches that follow one that failed"
    assert torch.emptied == (3 if initialized else 0)
