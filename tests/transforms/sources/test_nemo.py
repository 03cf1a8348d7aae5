"""NeMo manifests: plain ones, Canary's, and tarred data sets as NeMo's converter writes them."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile

from echo_targets.transforms.sources.base import Item, SourceError
from echo_targets.transforms.sources.nemo import NemoSource
from tests.transforms.rows import run_stages

Speech = list[dict[str, Any]]
Line = dict[str, Any]


def source(tree: Path, manifests: str | list[str] = "train.json", **parameters: Any) -> NemoSource:
    return NemoSource(kind="nemo", corpus="c", tree=str(tree), manifests=manifests, **parameters)


def listed(tree: Path, lines: list[Any], **parameters: Any) -> list[Item]:
    (tree / "train.json").write_text("\n".join(map(json.dumps, lines)))
    return list(source(tree, **parameters).items())


@pytest.fixture
def tree(tmp_path: Path, speech: Speech) -> Path:
    """Two files, and a long recording of three utterances."""
    folder = tmp_path / "nemo"
    (folder / "wavs").mkdir(parents=True)
    for name, row in zip(("one.v2", "two"), speech, strict=False):
        samples, rate = soundfile.read(row["audio"])
        soundfile.write(folder / "wavs" / f"{name}.wav", samples, rate)
    joined = [sample for row in speech[2:5] for sample in soundfile.read(row["audio"])[0]]
    soundfile.write(folder / "wavs" / "long.wav", joined, 16_000)
    return folder


@pytest.fixture
def lines(speech: Speech) -> list[Line]:
    made = [
        {"audio_filepath": f"wavs/{name}.wav", "duration": row["duration"], "text": row["text"]}
        for name, row in zip(("one.v2", "two"), speech, strict=False)
    ]
    start = 0.0
    for row in speech[2:5]:
        section = {"offset": start, "duration": row["duration"]}
        made.append({"audio_filepath": "wavs/long.wav", **section, "text": row["text"]})
        start += row["duration"]
    return made


def rows_of(folder: Path, given: NemoSource) -> list[dict[str, Any]]:
    dataset, reports = run_stages(folder / "root", {"ingest": {"sources": [given.model_dump(mode="json")]}})
    assert reports["ingest"].rejects == 0
    return dataset.read("utterances").to_pylist()


def check(rows: list[dict[str, Any]], speech: Speech) -> None:
    for row, said in zip(rows, speech[:5], strict=True):
        assert row["reference_text"] == said["text"]
        assert row["num_samples"] / 16_000 == pytest.approx(said["duration"], abs=0.002)


def test_a_manifest_with_and_without_offsets(tree: Path, lines: list[Line], tmp_path: Path, speech: Speech) -> None:
    (tree / "train.json").write_text("\n".join(map(json.dumps, lines)))
    rows = rows_of(tmp_path, source(tree))
    check(rows, speech)
    first, second = speech[2]["duration"], speech[2]["duration"] + speech[3]["duration"]
    assert [row["utterance_id"] for row in rows[:4]] == [
        "wavs/one.v2",
        "wavs/two",
        f"wavs/long-0.000-{first:.3f}",
        f"wavs/long-{first:.3f}-{second:.3f}",
    ]


def test_keys_of_canary_and_sdp(tree: Path, lines: list[Line]) -> None:
    canary = {"taskname": "asr", "source_lang": "de", "target_lang": "de", "pnc": "yes", "answer": "", "prompt": "x"}
    made = [lines[0] | canary, lines[1] | {"lang": "en", "_manifest_line": 7, "pred_text": "a", "wer": 0.5}]
    made += [lines[2] | {"source_lang": "en", "target_lang": "de", "taskname": "ast"}, lines[3] | {"_skipme": True}]
    items = listed(tree, [*made, lines[4] | {"_skipme": False, "id": "own", "speaker": "7"}])
    assert [item.language for item in items] == ["de", "en", None, None, None]
    assert "`target_lang` is 'de': the text is a translation" in str(items[2].error)
    assert "line 4: is marked `_skipme`" in str(items[3].error)
    assert (items[4].id, items[4].speaker_id, items[4].error) == ("own", "7", None)


def test_a_manifest_for_diarization(tree: Path) -> None:
    keys = {"label": "infer", "num_speakers": None, "rttm_filepath": None, "uem_filepath": None}
    line = {"audio_filepath": "wavs/long.wav", "offset": 0, "duration": None, "text": "-"} | keys
    (item,) = listed(tree, [line])
    assert (item.text, item.start_seconds, item.section_seconds, item.error) == (None, 0, None, None)


def test_one_section_twice_is_a_duplicate(tree: Path, lines: list[Line]) -> None:
    from echo_targets.transforms.sources.registry import entries

    (tree / "train.json").write_text("\n".join(map(json.dumps, [*lines, lines[3]])))
    assert Counter(row["error_class"] for row in entries([source(tree)])) == {None: 5, "duplicate_id": 1}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"duration": 1.0}, "has no audio path"),
        ({"audio_filepath": "../x.wav"}, "leads out of"),
        ({"audio_filepath": "wavs/a\nb.wav"}, "control characters"),
        ({"audio_filepath": "wavs/two.wav", "offset": 1, "duration": 0}, "it is a section's length"),
        ({"audio_filepath": ["wavs/two.wav"]}, "is a list; expected a path"),
    ],
)
def test_bad_lines(tree: Path, lines: list[Line], line: Line, says: str) -> None:
    _, bad = listed(tree, [lines[0], line])
    assert bad.error_class == "bad_line" and says in str(bad.error) and "train.json, line 2" in str(bad.error)


# -- tarred data sets -------------------------------------------------------------------------------------------------


def tarred(tree: Path, lines: list[Line], shards: int, keeps_offset: bool = True) -> list[Line]:
    """Write `audio_N.tar` and manifests by the rules of NeMo's `convert_to_tarred_audio_dataset.py`."""
    written: list[Line] = []
    (tree / "sharded_manifests").mkdir()
    for shard in range(shards):
        count: Counter[str] = Counter()
        own = []
        with tarfile.open(tree / f"audio_{shard}.tar", "w", dereference=True) as archive:
            for line in lines[shard::shards]:
                base, ending = str(line["audio_filepath"]).rsplit(".", 1)
                name = f"{base.replace('/', '_').replace('.', '_')}.{ending}"
                if not count[name]:
                    archive.add(tree / line["audio_filepath"], arcname=name)
                inside = name if not count[name] else f"{name[:-4]}-sub{count[name]}.{ending}"
                count[name] += 1
                kept = {key: value for key, value in line.items() if keeps_offset or key != "offset"}
                own.append(kept | {"audio_filepath": inside, "shard_id": shard})
        (tree / "sharded_manifests" / f"manifest_{shard}.json").write_text("\n".join(map(json.dumps, own)))
        written += own
    (tree / "tarred_audio_manifest.json").write_text("\n".join(map(json.dumps, written)))
    return written


@pytest.mark.parametrize(
    "manifests", ["tarred_audio_manifest.json", "sharded_manifests/manifest__OP_0..1_CL_.json", "sharded*/*.json"]
)
def test_a_tarred_data_set(tree: Path, lines: list[Line], tmp_path: Path, speech: Speech, manifests: str) -> None:
    tarred(tree, lines, 2)
    rows = rows_of(tmp_path, source(tree, manifests, tars="audio_{0..1}.tar"))
    order = [0, 2, 4, 1, 3]
    check([rows[order.index(place)] for place in range(5)], speech)
    assert rows[0]["audio"]["path"] == "wavs_one_v2.wav"
    assert [row["utterance_id"].rsplit("-", 2)[0] for row in rows[1:3]] == ["wavs_long", "wavs_long-sub1"]


def test_archives_are_found_by_their_number(tree: Path, lines: list[Line]) -> None:
    """Not by their position: `*` sorts 10 before 9, and a part of the archives may be there."""
    tarred(tree, lines, 2)
    for old, new in ((0, 9), (1, 10)):
        (tree / f"audio_{old}.tar").rename(tree / f"audio_{new}.tar")
        moved = [json.loads(line) for line in (tree / f"sharded_manifests/manifest_{old}.json").read_text().split("\n")]
        text = "\n".join(json.dumps({key: line[key] for key in line if key != "shard_id"}) for line in moved)
        (tree / f"manifest_{new}.json").write_text(text)
    items = list(source(tree, "manifest_*.json", tars="audio_*.tar").items())
    assert [item.error for item in items] == [None] * 5
    assert items[0].where == "manifest_10.json:1" and items[0].locator.startswith("audio_10.tar::")
    items = list(source(tree, "manifest_*.json", tars=["audio_9.tar", "audio_9.tar"]).items())
    assert [item.error for item in items] != [None] * 5  # with one archive, it is the one of every line


def test_faults_of_a_tarred_data_set(tree: Path, lines: list[Line]) -> None:
    tarred(tree, lines, 2)
    data = (tree / "audio_1.tar").read_bytes()
    (tree / "audio_1.tar").write_bytes(data[: len(data) // 2])
    (tree / "more.json").write_text(json.dumps(lines[0] | {"shard_id": 5}))
    items = list(source(tree, ["tarred_audio_manifest.json", "more.json"], tars="audio_{0..1}.tar").items())
    errors = [item.error for item in items if item.error]
    assert len(items) == 7 and len(errors) == 3
    assert "wavs_long.wav is not in audio_1.tar" in errors[0]
    assert "is in archive 5, but `tars` names 0, 1 only" in errors[1]
    assert "audio_1.tar is truncated inside of 'wavs_long.wav'; copy it again" in errors[2]


def test_offsets_that_an_old_converter_lost_are_rejects(tree: Path, lines: list[Line], tmp_path: Path) -> None:
    """It kept the duration of the section only; the whole file would get the text of a part."""
    tarred(tree, lines, 1, keeps_offset=False)
    given = source(tree, "tarred_audio_manifest.json", tars="audio_0.tar").model_dump(mode="json")
    _, reports = run_stages(tmp_path / "root", {"ingest": {"sources": [given]}})
    assert (reports["ingest"].rows, reports["ingest"].rejects) == (2, 3)


def test_archives_of_two_folders_are_two_sources(tree: Path, lines: list[Line]) -> None:
    tarred(tree, lines, 1)
    (tree / "bucket2").mkdir()
    (tree / "bucket2" / "audio_0.tar").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"have the same number; make a source of each folder"):
        list(source(tree, "tarred_audio_manifest.json", tars="*.tar").items())
