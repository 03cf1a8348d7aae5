"""A transform in a process of its own: the same outputs, and what becomes of a batch that kills it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from echo_targets.pipeline.halving import try_batch, work
from echo_targets.pipeline.isolation import CRASHED, Isolated
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import KEY
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import Output, Reject
from tests.pipeline.stand_ins import Double, stage
from tests.schemas.samples import arrow, key, samples


class Unloadable(Double):
    """Cannot load its model, in a way that the parameters say."""

    def setup(self) -> None:
        if self.parameters.word == "dies":
            self._kill_or_wait("model")
        if self.parameters.word == "unreachable":
            raise ConnectionResetError("no model server")
        raise UserError("no such model; write another")


def batch(count: int = 6) -> pa.Table:
    rows = samples("utterances", count)
    for row in rows:
        row["audio"] = {"bytes": row[KEY].encode(), "path": "a.flac"}
    return arrow("utterances", rows)


def outcome(spec: StageSpec, rows: pa.Table) -> tuple[list[dict[str, Any]], list[Reject]]:
    with Isolated(spec) as isolated:
        outputs = list(work(isolated, rows))
    made = pa.concat_tables(output.rows for output in outputs).to_pylist()
    return made, [reject for output in outputs for reject in output.rejects]


def test_it_gives_what_the_transform_gives() -> None:
    spec = stage(Double, refuses=[key(1)])
    with Isolated(spec) as isolated:
        apart = isolated.try_batch(batch())
    here = try_batch(spec.build(), batch())
    assert apart is not None and here is not None
    assert apart.rows.equals(here.rows) and apart.rejects == here.rejects and len(here.rejects) == 1


def test_rows_that_kill_it_are_refused_and_the_others_are_not(tmp_path: Path) -> None:
    made, rejects = outcome(stage(Double, kills={key(2): 1000, key(3): 1000}, folder=str(tmp_path)), batch())
    assert [row[KEY] for row in made] == [key(0), key(1), key(4), key(5)]
    assert [(reject.utterance_id, reject.error_class) for reject in rejects] == [(key(2), CRASHED), (key(3), CRASHED)]
    assert {reject.attempts for reject in rejects} == {2}
    assert "it crashed the process (signal SIGKILL, possibly out of memory)" in rejects[0].message


def test_a_row_that_kills_it_once_is_not_refused(tmp_path: Path) -> None:
    with Isolated(stage(Double, kills={key(0): 1}, folder=str(tmp_path))) as isolated:
        output = isolated.try_batch(batch(1))
    assert isinstance(output, Output) and output.rows[KEY].to_pylist() == [key(0)] and output.rejects == []


def test_what_raises_is_halved_as_here() -> None:
    made, rejects = outcome(stage(Double, raises=[key(4)], most_rows=2), batch())
    assert len(made) == 5 and [reject.error_class for reject in rejects] == ["ValueError"]


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ({"unreachable": [key(1)]}, OSError, "lost the connection"),
        ({"broken_device": [key(1)]}, OSError, "CUDA error"),
    ],
)
def test_faults_of_the_device_are_not_the_rows(fault: dict[str, Any], error: type[Exception], says: str) -> None:
    with Isolated(stage(Double, **fault)) as isolated, pytest.raises(error, match=says):
        isolated.try_batch(batch())


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        ("dies", OSError, "double: crashed while loading its model .*SIGKILL"),
        ("unreachable", OSError, "no model server"),
        ("missing", UserError, "no such model; write another"),
    ],
)
def test_a_model_that_does_not_load_is_not_the_rows_fault(
    tmp_path: Path, word: str, error: type[Exception], says: str
) -> None:
    parameters = Double.Parameters(word=word, kills={"model": 9}, folder=str(tmp_path)).model_dump()
    spec = StageSpec(f"{__name__}:Unloadable", parameters)
    with Isolated(spec) as isolated, pytest.raises(error, match=says):
        isolated.try_batch(batch())
