"""Every export of a root that a job made, with units of a codec and with the embedded ones, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from echo_targets.jobs.cli import app
from echo_targets.jobs.export.registry import FORMATS
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from tests.transforms.codec_checkpoints import make_codec
from tests.transforms.rows import run_stages

Made: TypeAlias = tuple[Dataset, dict[str, Any]]
LINES = [
    ("a", "When do you open?", "We open at nine, and we close at six. On Sunday the shop is closed all day."),
    ("b", "Is it far?", "No, it is a short walk. Turn left at the bridge, and then it is on your right."),
]


@pytest.fixture(scope="module", params=["codec", "embedded"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder: Path = tmp_path_factory.mktemp("exported")
    lines = [
        {"id": f"{name}{turn}", "dialogue_id": name, "turn": turn, "text": text}
        for name, *texts in LINES
        for turn, text in enumerate(texts)
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    codec = {"codebook": make_codec(folder / "mimi", "Mimi"), "num_codebooks": 1} if request.param == "codec" else {}
    stages: dict[str, Any] = {
        "ingest": {"sources": [{"kind": "spoken", "corpus": "s", "texts": str(folder / "t.jsonl")}]},
        "align": {},
        "tokenize": codec,
        "echo": {"model": "embedded:nano-t2c", "text": "response"},
        "publish_s2t": {},
        "publish_t2c": {},
        "publish_echo": {"target": "recorded"},
    }
    return run_stages(folder / "root", stages)[0], stages


@pytest.mark.slow
def test_all_six(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = made
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    spoken = {row["utterance_id"]: row for row in dataset.read("units").to_pylist()}
    frames = {key: np.repeat(row["units"][0], row["durations"]).tolist() for key, row in spoken.items()}
    sound = {row["utterance_id"]: row["num_samples"] for row in dataset.read("utterances").to_pylist()}
    for name in FORMATS:
        result = CliRunner().invoke(app, ["export", dataset.root, name, str(tmp_path / name)])
        assert result.exit_code == 0, result.output

    slam = {
        line["key"]: line for line in map(json.loads, (tmp_path / "slam-omni/train.jsonl").read_text().splitlines())
    }
    assert {key: line["target_token"] for key, line in slam.items()} == {"a0": frames["a1"], "b0": frames["b1"]}
    assert slam["a0"]["source_text"] == LINES[0][1] and slam["a0"]["target_text"] == LINES[0][2]
    assert soundfile.info(tmp_path / "slam-omni" / slam["b0"]["source_wav"]).frames == sound["b0"]
    vocalnet = {item["id"]: item for item in json.loads((tmp_path / "vocalnet/train.json").read_text())}
    assert {key: item["units"] for key, item in vocalnet.items()} == {"a0": frames["a1"], "b0": frames["b1"]}

    for line in map(json.loads, (tmp_path / "moshi-finetune/train.jsonl").read_text().splitlines()):
        path = tmp_path / "moshi-finetune" / line["path"]
        assert soundfile.info(path).channels == 2 and soundfile.info(path).duration == pytest.approx(line["duration"])
        words = json.loads(path.with_suffix(".json").read_text())["alignments"]
        assert [start for _, (start, _), _ in words] == sorted(start for _, (start, _), _ in words) and len(words) > 9

    lhotse, wds, datasets = (pytest.importorskip(name) for name in ("lhotse", "webdataset", "datasets"))
    cuts = {cut.supervisions[0].text: cut for cut in lhotse.CutSet.from_shar(in_dir=tmp_path / "lhotse/train")}
    assert {text for _, *texts in LINES for text in texts} == cuts.keys()
    assert cuts[LINES[0][2]].load_audio().shape == (1, sound["a1"])
    archives = sorted(map(str, (tmp_path / "webdataset").rglob("*.tar")))
    assert {each["__key__"] for each in wds.WebDataset(archives, shardshuffle=False)} == sound.keys()
    rows = datasets.load_dataset(str(tmp_path / "hub"), "echo", split="train").select_columns(["utterance_id"])
    assert sorted(rows["utterance_id"]) == ["a0", "b0"]


@pytest.mark.slow
def test_what_has_no_frames_is_refused_with_the_remedy(made: Made, tmp_path: Path) -> None:
    dataset, stages = made
    run_stages(Path(dataset.root), stages | {"publish_echo": {"min_mean_logprob": None}})
    result = CliRunner().invoke(app, ["export", dataset.root, "slam-omni", str(tmp_path / "out")])
    assert isinstance(result.exception, UserError) and "stages.publish_echo.target=recorded" in str(result.exception)
    assert not (tmp_path / "out").exists()
