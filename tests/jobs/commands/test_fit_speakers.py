"""fit-speakers on roots of several shards, and on real voices of which one bears a wrong name."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow.csv import read_csv

from echo_targets.jobs.commands.fit_speakers import fit_speakers_command, voices
from echo_targets.jobs.config import ConfigError
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from tests.schemas.samples import Root, key, sample
from tests.transforms.rows import rejects, run_stages

SAID = [("ann", [1.0, 0.0]), ("bob", [0.6, 0.8]), (None, [0.0, 1.0]), ("ann", None), ("ann", [0.8, 0.6])]


def test_voices_of_all_shards_by_speaker(tmp_path: Path) -> None:
    """Measures stand in another order than utterances; rows without a speaker or an embedding are left out."""
    root = Root(tmp_path)
    spoken = [sample("utterances", number) | {"corpus": "c", "speaker_id": one} for number, (one, _) in enumerate(SAID)]
    measured = [sample("measures", number) | {"speaker_embedding": two} for number, (_, two) in enumerate(SAID)]
    root.put("utterances", spoken[:2], spoken[2:])
    root.put("measures", measured[1::-1], measured[:1:-1])
    found = voices(Dataset(str(tmp_path)))
    assert list(found) == [("c", "ann"), ("c", "bob")] and found["c", "bob"][0] == [key(1)]
    assert found["c", "ann"][0] == [key(0), key(4)]
    assert np.allclose(found["c", "ann"][1], [[1, 0], [0.8, 0.6]])


def test_nothing_to_compare(tmp_path: Path) -> None:
    Root(tmp_path / "a").put("utterances", [sample("utterances")])
    with pytest.raises(ConfigError, match=r"no table measures\. Run a job with the stage measure first"):
        fit_speakers_command(str(tmp_path / "a"), str(tmp_path / "s.csv"))
    root = Root(tmp_path / "b")
    root.put("utterances", [sample("utterances")])
    root.put("measures", [sample("measures") | {"speaker_embedding": None}])
    with pytest.raises(ConfigError, match=r"no speaker has 3 utterances with an embedding\. Run a job with stages"):
        fit_speakers_command(str(tmp_path / "b"), str(tmp_path / "s.csv"))
    assert not (tmp_path / "s.csv").exists()


def test_an_utterance_under_a_wrong_name(speech: list[dict[str, Any]], tmp_path: Path) -> None:
    if find_spec("resemblyzer") is None:
        pytest.skip("resemblyzer is not installed")
    chapters: dict[str, list[dict[str, Any]]] = {}
    for row in speech:
        chapters.setdefault(row["speaker"], []).append(row)
    one, two = (rows[:5] for rows in list(chapters.values())[:2])
    speakers = ["one"] * 5 + ["two"] * 4 + ["one"]
    lines = [
        {"id": row["id"], "audio": str(row["audio"]), "text": row["text"], "speaker": speaker}
        for row, speaker in zip(one + two, speakers, strict=True)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sources = [{"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}]
    stages: dict[str, Any] = {"ingest": {"sources": sources}, "measure": {"speaker_model": "embedded:resemblyzer"}}
    dataset, _ = run_stages(tmp_path / "root", stages)
    assert list(check_dataset(dataset.root)) == []
    recipe = dataset.recipe("measures", dataset.current("measures").recipe)
    assert recipe.parameters == {"dnsmos": False} and recipe.weights.keys() == {"vad", "speaker_model"}
    for name in ("a.csv", "new/b.csv"):
        assert fit_speakers_command(str(tmp_path / "root"), str(tmp_path / name)) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "new/b.csv").read_bytes()
    found = read_csv(tmp_path / "a.csv")["speaker_similarity"].to_pylist()
    lowest, next_lowest = sorted(found)[:2]
    given = {"speaker_similarities": str(tmp_path / "a.csv"), "min_speaker_similarity": (lowest + next_lowest) / 2}
    dataset, _ = run_stages(tmp_path / "root", stages | {"publish_s2t": given})
    assert rejects(dataset, "training/s2t").keys() == {two[4]["id"]}
