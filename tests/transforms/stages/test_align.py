"""align as a stage: which text is aligned, what has no text, both methods, rows that the contract accepts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import joined
from echo_targets.transforms.stages.align import Align, AlignParameters
from tests.transforms.rows import apply, rejects, run_stages, window


@pytest.mark.parametrize("method", ["ctc", "attention"])
def test_words_of_the_reference_get_their_times(ingested: Dataset, method: str) -> None:
    from echo_targets.schemas import TRANSCRIPTS

    transform = Align(AlignParameters(method=method))
    transform.setup()
    rows = joined(window(ingested).slice(0, 4), TRANSCRIPTS, None)
    output = apply(transform, rows)
    assert output.rejects == []
    for source, row in zip(rows.to_pylist(), output.rows.to_pylist(), strict=True):
        assert row["text_source"] == "reference" and row["status"] == "ok" and row["coverage"] == 1.0
        words = [item["symbol"] for item in row["items"]]
        assert words == source["reference_text"].split()
        for item in row["items"]:
            assert source["reference_text"][item["char_start"] : item["char_end"]] == item["symbol"]
            assert 0 <= item["start_sample"] < item["end_sample"] <= source["num_samples"]


def test_without_a_reference_the_transcript_is_aligned(speech: list[dict], tmp_path: Path) -> None:
    lines = [{"id": row["id"], "audio": str(row["audio"])} for row in speech[:2]]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}
    ingest = {"ingest": {"sources": [source]}}
    heard, _ = run_stages(tmp_path / "heard", {**ingest, "transcribe": {}, "align": {}})
    assert {row["text_source"] for row in heard.read("alignments").to_pylist()} == {"transcript"}
    assert list(check_dataset(heard.root)) == []
    unheard, _ = run_stages(tmp_path / "unheard", {**ingest, "align": {}})
    assert unheard.read("alignments").num_rows == 0
    found = rejects(unheard, "alignments")
    assert {row["error_class"] for row in found.values()} == {"no_text"}
    assert all(Path(line["audio"]).name in found[line["id"]]["message"] for line in lines)


def test_numbers_are_interpolated_and_say_so(ingested: Dataset) -> None:
    from echo_targets.schemas import TRANSCRIPTS

    transform = Align(AlignParameters())
    transform.setup()
    rows = joined(window(ingested).slice(3, 1), TRANSCRIPTS, None)
    words = rows["reference_text"][0].as_py().split()
    text = " ".join(["1998" if place == 1 else word for place, word in enumerate(words)])
    changed = rows.set_column(rows.column_names.index("reference_text"), "reference_text", [[text]])
    (row,) = apply(transform, changed).rows.to_pylist()
    assert row["status"] == "partial" and row[KEY]
    assert [item["interpolated"] for item in row["items"]] == [place == 1 for place in range(len(words))]
    assert row["items"][1]["score"] is None


def test_what_failed_says_why_and_is_in_no_training_set(speech: list[dict], tmp_path: Path) -> None:
    texts = {
        "chinese": "今天天气很好。",
        "crowded": "7 " * 40_000 + "seven",
        "silent": "…?!",
        "mixed": "我 say 今天天气很好",
    }
    lines = [{"id": key, "audio": str(speech[0]["audio"]), "text": text} for key, text in texts.items()]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}, "align": {}, "publish_s2t": {}})
    assert list(check_dataset(dataset.root)) == []
    rows = {row[KEY]: row for row in dataset.read("alignments").to_pylist()}
    assert {key: row["status"] for key, row in rows.items()} == dict.fromkeys(texts, "failed") | {"mixed": "partial"}
    assert "none of the text's 6 words can be spelled" in rows["chinese"]["reason"]
    assert "40001 words, but the audio has room for" in rows["crowded"]["reason"]
    assert rows["silent"]["reason"] == "the text has no words" and rows["mixed"]["reason"] is None
    found = rejects(dataset, "training/s2t")
    assert {row["error_class"] for row in found.values()} == {"filtered_alignment_coverage"}
    assert found.keys() == texts.keys() and dataset.read("training/s2t").num_rows == 0
