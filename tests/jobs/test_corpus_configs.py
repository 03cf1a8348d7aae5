"""The seven corpora: each configuration on a small copy of its source's own layout, and all of them in one file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from echo_targets.jobs.arguments import ReportFormat
from echo_targets.jobs.commands.plan import plan_command
from echo_targets.jobs.commands.run import job_of, run_command, sources_of
from echo_targets.jobs.config import CONFIGS, ConfigError, JobConfig, load
from echo_targets.jobs.expected import differences
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.sources.base import SourceError
from tests.pipeline.stand_ins import files
from tests.transforms.rows import rejects, run_stages

NAMES = sorted(path.stem for path in (CONFIGS / "corpora").glob("*.yaml"))
Speech = list[dict[str, Any]]


def settings_of(name: str, data: Path, *overrides: str) -> JobConfig:
    return load(name, [f"data={data}", f"root={data}/out", *overrides])


def librispeech(data: Path, speech: Speech) -> None:
    for split, row in zip(("train-clean-100", "train-clean-360", "train-other-500"), speech, strict=False):
        speaker, chapter, _ = row["id"].split("-")
        folder = data / "LibriSpeech" / split / speaker / chapter
        folder.mkdir(parents=True)
        shutil.copy(row["audio"], folder / f"{row['id']}.flac")
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(f"{row['id']} {row['text'].upper()}\n")


def mls(data: Path, speech: Speech) -> None:
    train = data / "mls_english" / "train"
    transcripts, segments = "", ""
    for row in speech[:3]:
        speaker, book, number = row["id"].split("-")
        key = f"{speaker}_{book}_00{number}"
        folder = train / "audio" / speaker / book
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["audio"], folder / f"{key}.flac")
        transcripts += f"{key}\t{row['text']}\n"
        segments += f"{key}\thttp://www.archive.org/x.mp3\t10.5\t{10.5 + row['duration']}\n"
    (train / "transcripts.txt").write_text(transcripts)
    (train / "segments.txt").write_text(segments)


def dialogues(archive: Path, speech: Speech, spoken: set[str]) -> None:
    """Three dialogues of a question and an answer in an archive's folder; those that are spoken have audio."""
    (archive / "audio").mkdir(parents=True)
    listed = []
    for number in range(3):
        turns: list[dict[str, Any]] = []
        for who, row in zip(("human", "gpt"), speech[2 * number : 2 * number + 2], strict=True):
            turns.append({"from": who, "value": row["text"]})
            if who in spoken:
                turns[-1] |= {"audio": f"audio/{number}_{who}.wav", "wer": 0.0}
                soundfile.write(archive / turns[-1]["audio"], soundfile.read(row["audio"])[0], SAMPLE_RATE)
        listed.append({"id": str(number), "conversations": turns})
    (archive / "data.json").write_text(json.dumps(listed))


def manifest(data: Path, speech: Speech) -> None:
    (data / "wav").mkdir(parents=True)
    lines = []
    for row in speech[:3]:
        shutil.copy(row["audio"], data / "wav" / f"{row['id']}.flac")
        line = {"id": row["id"], "audio": f"wav/{row['id']}.flac", "text": row["text"], "role": "assistant"}
        lines.append(json.dumps(line))
    (data / "manifest.jsonl").write_text("\n".join(lines))


LAYOUTS: dict[str, Callable[[Path, Speech], None]] = {
    "librispeech": librispeech,
    "mls": mls,
    "audioqa-1m": lambda data, speech: dialogues(
        data / "EchoX-Dialogues-Plus" / "S2S-QA" / "AudioQA" / "part-000", speech, {"human", "gpt"}
    ),
    "speechinstruct": lambda data, speech: manifest(data / "SpeechInstruct", speech),
    "hh-rlhf-speech": lambda data, speech: manifest(data / "HH-RLHF-Speech", speech),
    "sharechatx": lambda data, speech: dialogues(
        data / "EchoX-Dialogues" / "ShareChatX" / "part-000", speech, {"human", "gpt"}
    ),
    "magpie-pro-speech": lambda data, speech: dialogues(
        data / "EchoX-Dialogues" / "Magpie-Pro-Speech+" / "part-000", speech, {"human"}
    ),
}


def test_every_corpus_is_in_the_whole(tmp_path: Path) -> None:
    alone = [source for name in NAMES for source in sources_of(settings_of(f"corpora/{name}", tmp_path))]
    whole = sources_of(settings_of("echox-6k", tmp_path))
    assert sorted(map(str, alone)) == sorted(map(str, whole)) and len(whole) == 7
    assert [source.corpus for source in alone] == NAMES == sorted(LAYOUTS)
    assert sum(source.expected.items for source in whole if source.expected) == 1_500_184
    assert sum(source.expected.hours for source in whole if source.expected) == 6_194


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus_in_its_own_layout(name: str, tmp_path: Path, speech: Speech) -> None:
    LAYOUTS[name](tmp_path, speech)
    everything = ["stages.ingest.sources.0.share=1"] if name == "mls" else []
    settings = settings_of(f"corpora/{name}", tmp_path, *everything)
    dataset, _ = run_stages(Path(settings.root), settings.stages)
    rows = dataset.read("utterances").to_pylist()
    assert list(check_dataset(settings.root)) == [] and rejects(dataset, "utterances") == {}
    (source,) = sources_of(settings)
    assert source.expected is not None
    taken = slice(0, 6, 2) if source.expected.role == "user" else slice(0, 3)
    if name == "audioqa-1m":
        taken = slice(1, 6, 2)
    assert sorted(row["reference_text"] for row in rows) == sorted(row["text"] for row in speech[taken])
    assert {row["role"] for row in rows} == {source.expected.role}
    assert {(row["corpus"], row["language"], row["license"]) for row in rows} == {(name, "en", source.license)}
    if source.expected.role == "user":
        assert [row["turn"] for row in rows] == [0, 0, 0] and len({row["dialogue_id"] for row in rows}) == 3
    (said,) = differences([source], dataset)
    assert said.startswith(f"{name}: ingest stored 3 items") and f"{source.expected.items:,} items" in said
    items, hours = 3, sum(row["num_samples"] for row in rows) / SAMPLE_RATE / 3600
    right = source.model_copy(update={"expected": source.expected.model_copy(update={"items": items, "hours": hours})})
    assert differences([right], dataset) == []


def test_what_is_expected_is_checked_after_ingest(
    tmp_path: Path, speech: Speech, capsys: pytest.CaptureFixture[str]
) -> None:
    librispeech(tmp_path, speech)
    arguments = [f"data={tmp_path}", f"root={tmp_path}/out"]
    hours = sum(row["duration"] for row in speech[:3]) / 3600
    expected = "stages.ingest.sources.0.expected"
    wrong, right = ([f"{expected}.items={items}", f"{expected}.hours={hours}"] for items in (4, 3))
    assert run_command("corpora/librispeech", [*arguments, *wrong], dry_run=False) == 1
    assert "librispeech: ingest stored 3 items" in capsys.readouterr().out
    before = files(tmp_path)
    assert run_command("corpora/librispeech", [*arguments, *right], dry_run=False) == 0
    said = capsys.readouterr().out
    assert "ingest stored" not in said and "nothing to do" in said
    assert files(tmp_path) == before, "what is expected is no part of a fingerprint"
    assert run_command("corpora/librispeech", [*arguments, *right], dry_run=True) == 0
    assert "librispeech: 3 items and 0.01 hours listed, 3 items" in capsys.readouterr().out


def test_several_sources_of_a_corpus_are_added_up(tmp_path: Path, speech: Speech) -> None:
    librispeech(tmp_path, speech)
    (source,) = sources_of(settings_of("corpora/librispeech", tmp_path))
    assert source.expected is not None
    parts = [source.model_copy(update={"splits": [split]}) for split in ("train-clean-100", "train-clean-360")]
    dataset, _ = run_stages(tmp_path / "out", {"ingest": {"sources": [part.model_dump() for part in parts]}})
    hours = sum(row["duration"] for row in speech[:2]) / 3600
    one = source.expected.model_copy(update={"items": 1, "hours": hours / 2})
    asked = [part.model_copy(update={"expected": one}) for part in parts]
    assert differences(asked, dataset) == []
    assert len(differences(asked[:1], dataset)) == 1
    assert differences([asked[0], parts[1].model_copy(update={"expected": None})], dataset) == []


def test_the_plan_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_command("echox-6k", [f"data={tmp_path}", f"root={tmp_path}/out"], None, format=ReportFormat.JSON) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["items"], found["hours"], found["unreadable"]) == (1_500_184, 6194, 0)
    assert found["shards"] == pytest.approx(6194 / 30, abs=4) and found["gpu_hours"] > 100
    assert [lost["corpus"] for lost in found["missing"]] == [
        source.corpus for source in sources_of(settings_of("echox-6k", tmp_path))
    ]
    rows = {(cost["stage"], cost["corpus"]): cost["rows"] for cost in found["costs"]}
    assert rows["transcribe", "mls"] == 723_636 and rows["echo", "sharechatx"] == 43_223
    assert {corpus for stage, corpus in rows if stage == "echo"} == {"sharechatx", "magpie-pro-speech"}
    assert {corpus for stage, corpus in rows if stage == "publish_t2c"} == {
        "audioqa-1m",
        "speechinstruct",
        "hh-rlhf-speech",
    }


def test_the_plan_of_what_is_there_in_part(tmp_path: Path, speech: Speech, capsys: pytest.CaptureFixture[str]) -> None:
    librispeech(tmp_path, speech)
    assert plan_command("echox-6k", [f"data={tmp_path}", f"root={tmp_path}/out"], None, format=ReportFormat.JSON) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["items"] == 1_500_184 - 281_241 + 3 and len(found["missing"]) == 6
    assert plan_command("echox-6k", [f"data={tmp_path}", f"root={tmp_path}/out"], None) == 0
    assert "mls is missing and counted at its expected size" in capsys.readouterr().out


def test_a_dry_run_says_what_is_missing(tmp_path: Path, speech: Speech, capsys: pytest.CaptureFixture[str]) -> None:
    librispeech(tmp_path, speech)
    before = files(tmp_path)
    assert run_command("echox-6k", [f"data={tmp_path}", f"root={tmp_path}/out"], dry_run=True) == 0
    said = capsys.readouterr().out
    assert "librispeech: 3 items and 0.01 hours listed, 281,241 items and 960 hours are expected" in said
    assert "mls: missing, 723,636 items and 3,000 hours are expected: " in said and "mls_english/train" in said
    assert "unpack each archive to its own folder" in said
    assert "transcribe v6: transcripts 2." in said and "publish_echo v" in said
    assert "missing: models/EchoX-8B has no readable config.json" in said
    assert files(tmp_path) == before
    with pytest.raises(SourceError, match="mls_english/train"):
        job_of(settings_of("echox-6k", tmp_path))


def test_a_missing_source_of_which_nothing_is_expected_is_an_error(tmp_path: Path) -> None:
    arguments = [f"data={tmp_path}", f"root={tmp_path}/out", "stages.ingest.sources.0.expected=null"]
    for command in (
        lambda: run_command("corpora/librispeech", arguments, dry_run=True),
        lambda: plan_command("corpora/librispeech", arguments, None),
    ):
        with pytest.raises(SourceError, match="train-clean-100: has no <speaker>"):
            command()


def test_an_expectation_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected\.items"):
        settings_of("corpora/mls", tmp_path, "stages.ingest.sources.0.expected.items=0")


@pytest.mark.slow
def test_the_whole_through_every_stage(tmp_path: Path, speech: Speech, capsys: pytest.CaptureFixture[str]) -> None:
    """All seven layouts in one job, with embedded models; each is far smaller than expected, and all else is well."""
    short = sorted(speech, key=lambda row: row["duration"])
    for number, name in enumerate(NAMES):
        LAYOUTS[name](tmp_path, short[6 * number : 6 * number + 6])
    models = ["model=embedded:echox-nano", "prompt=embedded:prompts/nano.json", "stages.echo.dtype=float32"]
    brief = ["stages.transcribe.temperatures=[0]", "stages.echo.max_tokens=12", "stages.echo.max_units=40"]
    given = [f"data={tmp_path}", f"root={tmp_path}/out", *models, *brief, "stages.ingest.sources.1.share=1"]
    assert run_command("echox-6k", [*given, "max_reject_fraction=0", "allow_empty=true"], dry_run=False) == 1
    said = capsys.readouterr().out
    assert len(re.findall(r": ingest stored 3 items and 0\.0\d hours, but ", said)) == 7, said
    assert list(check_dataset(f"{tmp_path}/out")) == []
    dataset = Dataset(f"{tmp_path}/out")
    sets = {name: dataset.read(f"training/{name}").to_pylist() for name in ("s2t", "t2c", "echo")}
    assert {row["corpus"] for row in sets["s2t"]} == {"librispeech", "mls", "sharechatx", "magpie-pro-speech"}
    assert {row["corpus"] for row in sets["t2c"]} == {"audioqa-1m", "speechinstruct", "hh-rlhf-speech"}
    answered = {row["dialogue_id"].rsplit("-", 3)[0] for row in dataset.read("echo_targets").to_pylist()}
    assert len(answered) == 2
