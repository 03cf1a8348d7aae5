"""fit-duplicates on roots of several shards, and on real speech whose copies were made by codecs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile

from echo_targets.jobs.commands.fit_duplicates import duplicates, fit_duplicates_command
from echo_targets.jobs.config import ConfigError
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.stages.publish.duplicates import Duplicate, load_duplicates
from tests.schemas.samples import Root, key, sample
from tests.transforms.rows import rejects, run_stages


def utterance(number: int, audio: int, text: str | None, split: str = "train") -> dict[str, Any]:
    return sample("utterances", number) | {"audio_sha256": bytes([audio] * 32), "reference_text": text, "split": split}


ROWS = [
    utterance(0, 1, "one two three four five six seven"),
    utterance(1, 2, "One, two, three: four five six SEVEN"),
    utterance(2, 1, "other words"),
    utterance(3, 3, None),
    utterance(4, 4, None),
    utterance(5, 2, "nothing like it", "test-other"),
    utterance(6, 5, "eight words that nobody else has ever said"),
]
HEARD = [sample("transcripts", number) | {"text": "eight words that nobody else has ever said"} for number in (3, 4)]


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_all_shards_in_any_order(order: slice, tmp_path: Path) -> None:
    root, rows = Root(tmp_path / "root"), ROWS[order]
    root.put("utterances", rows[:3], rows[3:])
    root.put("transcripts", HEARD[:1], HEARD[1:])
    assert list(duplicates(Dataset(str(root.folder)))) == [
        Duplicate(key(1), key(5), "audio"),  # the test split's row stays
        Duplicate(key(2), key(0), "audio"),
        Duplicate(key(4), key(3), "text"),
        Duplicate(key(6), key(3), "text"),
    ]


def test_tables_of_other_utterances_are_left_out(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.put("utterances", ROWS[3:5])
    root.put("transcripts", HEARD)
    assert [each.by for each in duplicates(Dataset(str(tmp_path)))] == ["text"]
    root.put("utterances", ROWS[3:5], variant="new")
    assert list(duplicates(Dataset(str(tmp_path)))) == []


def test_nothing_to_read(tmp_path: Path) -> None:
    Root(tmp_path).put("entries", [sample("entries")])
    with pytest.raises(ConfigError, match=r"no table utterances\. Finish `echo-targets run` first\."):
        fit_duplicates_command(str(tmp_path), str(tmp_path / "d.jsonl"))
    assert not (tmp_path / "d.jsonl").exists()


def test_copies_of_real_speech(speech: list[dict[str, Any]], tmp_path: Path) -> None:
    """The same samples in another container, quieter, and as MP3; each copy, and nothing else, is dropped."""
    lines = []
    for row in speech[:6]:
        sound, rate = soundfile.read(row["audio"])
        lines.append({"id": row["id"], "audio": str(row["audio"]), "text": row["text"], "split": "test"})
        for kind, samples, ending in (("wav", sound, "wav"), ("quiet", sound * 0.6, "wav"), ("mp3", sound, "mp3")):
            path = tmp_path / f"{kind}-{row['id']}.{ending}"
            soundfile.write(path, samples, rate)
            lines.append({"id": path.stem, "audio": str(path), "text": row["text"]})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sources = [{"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}]
    stages: dict[str, Any] = {"ingest": {"sources": sources}, "tokenize": {}}
    run_stages(tmp_path / "root", stages)
    for name in ("a.jsonl", "new/b.jsonl"):
        assert fit_duplicates_command(str(tmp_path / "root"), str(tmp_path / name)) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "new/b.jsonl").read_bytes()
    found = list(load_duplicates(tmp_path / "a.jsonl"))
    copies = {f"{kind}-{row['id']}": row["id"] for row in speech[:6] for kind in ("wav", "quiet", "mp3")}
    assert {each.id: each.duplicate_of for each in found} == copies, "a copy whose units differ has the text"
    by = Counter((each.id.partition("-")[0], each.by) for each in found)
    assert by["wav", "audio"] == by["quiet", "units"] == 6 and by["mp3", "units"] >= 4
    given = {"duplicates": str(tmp_path / "a.jsonl"), "drop_duplicates": ["audio", "units", "text"]}
    dataset, _ = run_stages(tmp_path / "root", stages | {"publish_s2t": given})
    assert rejects(dataset, "training/s2t").keys() == copies.keys()
