"""Common Voice releases: their columns and quirks, and files that an unpacked release may lack."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
from pydantic import ValidationError

from echo_targets.transforms.languages import code_of
from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.sources.common_voice import CommonVoiceSource
from tests.transforms.rows import rejects, run_stages

Speech = list[dict[str, Any]]
COLUMNS = {
    "3": "client_id path sentence up_votes down_votes age gender accent",
    "11": "client_id path sentence up_votes down_votes age gender accents locale segment",
    "17": (
        "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale "
        "segment"
    ),
}
LOCALES = (
    "ab af am ar as ast az ba bas be bg bn br ca ckb cnh cs cv cy da dav de dv dyu el en eo es et eu fa fi fr fy-NL "
    "ga-IE gl gn ha he hi hsb ht hu hy-AM ia id ig is it ja ka kab kk kln kmr ko ky lg lij lo lt ltg luo lv mdf mhr mk "
    "ml mn mr mrj mt myv nan-tw ne-NP nhi nl nn-NO nr nso oc or os pa-IN pl ps pt quy rm-sursilv rm-vallader ro ru rw "
    "sah sat sc sk skr sl sq sr ss st sv-SE sw ta te th ti tig tk tn tok tr ts tt tw ug uk ur uz ve vi vot xh yi yo "
    "yue za zgh zh-CN zh-HK zh-TW zu zza"
)


def source(tree: Path, **parameters: Any) -> CommonVoiceSource:
    return CommonVoiceSource(kind="common-voice", tree=str(tree), **parameters)


def write(tree: Path, split: str, version: str, rows: list[dict[str, str]]) -> None:
    names = COLUMNS[version].split()
    lines = ["\t".join(names), *("\t".join(row.get(name, "") for name in names) for row in rows)]
    (tree / f"{split}.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def rows(speech: Speech) -> list[dict[str, str]]:
    return [
        {
            "client_id": f"{row['speaker']:0>64}",
            "path": f"common_voice_en_{number + 17}.mp3",
            "sentence": f"{row['text'].capitalize()}.",
            "sentence_domain": "news_current_affairs",
            "up_votes": "2",
            "locale": "en",
        }
        for number, row in enumerate(speech[:4])
    ]


@pytest.fixture
def tree(tmp_path: Path, rows: list[dict[str, str]], speech: Speech) -> Path:
    folder = tmp_path / "cv-corpus-17.0-2024-03-15" / "en"
    (folder / "clips").mkdir(parents=True)
    for row, said in zip(rows, speech, strict=False):
        soundfile.write(folder / "clips" / row["path"], soundfile.read(said["audio"])[0], 16_000, format="MP3")
    return folder


@pytest.mark.parametrize("version", COLUMNS)
def test_releases(tree: Path, rows: list[dict[str, str]], tmp_path: Path, speech: Speech, version: str) -> None:
    write(tree, "train", version, rows[:2])
    write(tree, "dev", version, rows[2:])
    durations = [f"{row['path']}\t{round(1000 * said['duration'])}" for row, said in zip(rows, speech, strict=False)]
    (tree / "clip_durations.tsv").write_text("\n".join(["clip\tduration[ms]", *durations]))
    given = source(tree, splits=["train", "dev"]).model_dump(mode="json")
    dataset, reports = run_stages(tmp_path / "root", {"ingest": {"sources": [given]}})
    assert reports["ingest"].rejects == 0
    stored = dataset.read("utterances").to_pylist()
    assert [row["utterance_id"] for row in stored] == [f"common_voice_en_{number}" for number in (17, 18, 19, 20)]
    assert [row["split"] for row in stored] == ["train", "train", "dev", "dev"]
    for row, given_row, said in zip(stored, rows, speech, strict=False):
        assert (row["reference_text"], row["speaker_id"]) == (given_row["sentence"], given_row["client_id"])
        assert row["num_samples"] / 16_000 == pytest.approx(said["duration"], abs=0.1)
        assert (row["corpus"], row["license"], row["language"]) == ("common-voice", "CC0-1.0", "en")
    items = list(source(tree, splits=["train"]).items())
    assert [item.seconds for item in items] == [round(row["duration"], 3) for row in speech[:2]]


def test_quirks_of_sentences_and_paths(tree: Path, rows: list[dict[str, str]], tmp_path: Path, speech: Speech) -> None:
    """Unpaired quotes (common-voice #5189, lhotse #977), paths without `.mp3`, empty clips (cv-dataset #31)."""
    rows[0]["sentence"] = '"Hello, world!'
    rows[1]["sentence"] = 'He said "no."'
    rows[2]["path"] = rows[2]["path"].removesuffix(".mp3")
    (tree / "clips" / rows[3]["path"]).write_bytes(b"")
    lost, out = rows[0] | {"path": "lost.mp3"}, rows[0] | {"path": "../../../secret.mp3"}
    write(tree, "validated", "17", [*rows, lost, out, rows[0] | {"path": "x.mp3", "locale": "Klingonese"}])
    (tree / "clip_durations.tsv").write_text(f"clip\tduration[ms]\n{rows[0]['path']}\tx\nshort\n")
    given = source(tree, splits=["validated"]).model_dump(mode="json")
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [given]}})
    stored = dataset.read("utterances").to_pylist()
    assert [row["reference_text"] for row in stored] == ['"Hello, world!', 'He said "no."', rows[2]["sentence"]]
    found = {key: row["error_class"] for key, row in rejects(dataset, "utterances").items()}
    assert found == {
        "common_voice_en_20": "empty",
        "lost": "missing_file",
        "validated.tsv:7": "bad_line",
        "validated.tsv:8": "bad_line",
    }


def test_every_locale_is_a_language() -> None:
    assert [locale for locale in LOCALES.split() if code_of(locale) is None] == []


def test_what_is_not_there(tree: Path, rows: list[dict[str, str]]) -> None:
    write(tree, "train", "17", rows)
    with pytest.raises(SourceError, match=r"has no test\.tsv; it has train"):
        list(source(tree, splits=["test"]).items())
    with pytest.raises(SourceError, match=r"name a language's folder, such as cv-corpus-17\.0/en"):
        list(source(tree.parent).items())
    with pytest.raises(ValidationError, match="validated contains dev: name either"):
        source(tree, splits=["dev", "validated"])


def test_moving_a_release_changes_no_item(tree: Path, rows: list[dict[str, str]], tmp_path: Path) -> None:
    write(tree, "train", "17", rows)
    before = list(source(tree).items())
    shutil.move(tree, tmp_path / "en")
    assert list(source(tmp_path / "en").items()) == before
