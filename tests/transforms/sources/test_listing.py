"""What each source lists, and what it makes of bad lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.sources.dialogues import DialoguesSource
from echo_targets.transforms.sources.huggingface import HuggingFaceSource
from echo_targets.transforms.sources.librispeech import LibriSpeechSource
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.mls import MlsSource
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.sources.spoken import SpokenSource


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "audio" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE), SAMPLE_RATE)
    return path


def listed(folder: Path, lines: list[Any], name: str = "manifest.jsonl") -> list[dict[str, Any]]:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / name).write_text(text + "\n")
    return list(entries([ManifestSource(kind="manifest", corpus="c", manifest=str(folder / name))]))


def test_a_manifest_line_becomes_an_entry(tmp_path: Path, wav: Path) -> None:
    (row,) = listed(tmp_path, [{"id": "u", "audio": "audio/a.wav", "text": "Hi.", "speaker": 7, "split": "dev"}])
    assert row[KEY] == "u" and row["error"] is None
    assert (row["reference_text"], row["speaker_id"], row["split"]) == ("Hi.", "7", "dev")
    assert row["seconds"] == 1.0 and row["size"] == wav.stat().st_size
    assert row["role"] == "narrator"


def test_turns_decide_roles(tmp_path: Path, wav: Path) -> None:
    turns = [{"id": f"u{turn}", "audio": "audio/a.wav", "dialogue_id": "d", "turn": turn} for turn in range(3)]
    assert [row["role"] for row in listed(tmp_path, turns)] == ["user", "assistant", "user"]


def test_a_turn_that_comes_twice_is_an_error_that_names_both(tmp_path: Path, wav: Path) -> None:
    turns = [("one", 0), ("other", 0), ("reply", 1)]
    lines = [{"id": name, "audio": "audio/a.wav", "dialogue_id": "d", "turn": turn} for name, turn in turns]
    rows = listed(tmp_path, [*lines, lines[0], lines[0] | {"id": "elsewhere", "dialogue_id": "e"}])
    assert [row["error_class"] for row in rows] == [None, "duplicate_turn", None, "duplicate_id", None]
    assert "manifest.jsonl:2: turn 0 of dialogue d is already at manifest.jsonl:1" in rows[1]["error"]


def test_dialogues_that_count_from_1_do_not_say_who_speaks_first(tmp_path: Path, wav: Path) -> None:
    turns = [{"id": f"u{turn}", "audio": "audio/a.wav", "dialogue_id": "d", "turn": turn} for turn in (1, 2)]
    with pytest.raises(
        SourceError, match=r"no dialogue of .* has a turn 0.*number turns from 0.*or give each row a `role`"
    ):
        listed(tmp_path, turns)
    spoken = [line | {"role": role} for line, role in zip(turns, ("user", "assistant"), strict=True)]
    assert [row["role"] for row in listed(tmp_path, spoken)] == ["user", "assistant"]


def test_absolute_paths_and_missing_files_are_listed(tmp_path: Path, wav: Path) -> None:
    rows = listed(tmp_path, [{"id": "a", "audio": str(wav)}, {"id": "b", "audio": "audio/lost.wav"}])
    assert [row["error"] for row in rows] == [None, None]
    assert rows[1]["size"] is None and rows[1]["locator"].endswith("audio/lost.wav")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "line 2: is not JSON"),
        ("[1]", "line 2: is not a JSON object"),
        ('{"id": "\\ud800", "audio": "audio/a.wav"}', "line 2: is not JSON"),
        ("[" * 5000, "line 2: is not JSON"),
        ({"audio": "audio/a.wav"}, "has no id"),
        ({"id": "x"}, "has no audio path"),
        ({"id": "x", "audio": "../../etc/passwd"}, "leads out of the manifest's folder"),
        ({"id": "x", "audio": "a\0b"}, "has no audio path"),
        ({"id": "x", "audio": "audio/a.wav", "turn": 1}, "only one of dialogue_id and turn"),
        ({"id": "x", "audio": "audio/a.wav", "dialogue_id": "d", "turn": "one"}, "turn 'one' is not a number"),
        ({"id": "x", "audio": "audio/a.wav", "role": "robot"}, "role 'robot' is not one of"),
        ({"id": "x", "audio": "audio/a.wav", "duration": 1e9}, "duration 1000000000.0 is outside"),
        ({"id": "x", "audio": "audio/a.wav", "channel": 1000}, "channel 1000 is outside"),
    ],
)
def test_bad_lines_are_entries_with_an_error(tmp_path: Path, wav: Path, line: Any, says: str) -> None:
    good = {"id": "good", "audio": "audio/a.wav"}
    rows = listed(tmp_path, [good, line, good | {"id": "also good"}])
    assert [row["error_class"] for row in rows] == [None, "bad_line", None]
    assert says in rows[1]["error"] and "manifest.jsonl, line 2" in rows[1]["error"]
    assert rows[1][KEY] == "manifest.jsonl:2"


def test_a_duplicate_names_both_lines(tmp_path: Path, wav: Path) -> None:
    line = {"id": "same", "audio": "audio/a.wav"}
    rows = listed(tmp_path, [line, line])
    assert rows[0]["error"] is None
    assert rows[1]["error_class"] == "duplicate_id"
    assert "manifest.jsonl:2" in rows[1]["error"] and "manifest.jsonl:1" in rows[1]["error"]
    assert len({row[KEY] for row in rows}) == 2


def test_bytes_that_are_no_text_are_one_bad_line(tmp_path: Path, wav: Path) -> None:
    good = json.dumps({"id": "good", "audio": "audio/a.wav"}).encode()
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe\x00bad\n" + good + b"\n")
    source = ManifestSource(kind="manifest", corpus="c", manifest=str(tmp_path / "m.jsonl"))
    assert [row["error_class"] for row in entries([source])] == ["bad_line", None]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, wav: Path) -> None:
    line = json.dumps({"id": "good", "audio": "audio/a.wav"})
    (tmp_path / "m.jsonl").write_text(line, encoding="utf-8-sig")
    source = ManifestSource(kind="manifest", corpus="c", manifest=str(tmp_path / "m.jsonl"))
    assert [row[KEY] for row in entries([source])] == ["good"]


def test_tsv(tmp_path: Path, wav: Path) -> None:
    header = "id\taudio\ttext\tdialogue_id\tturn"
    lines = [header, 'q\taudio/a.wav\tSay "hi".\td\t0', "short\tline", "r\taudio/a.wav\t\t\t"]
    rows = listed(tmp_path, lines, "manifest.tsv")
    assert rows[0]["reference_text"] == 'Say "hi".' and rows[0]["turn"] == 0
    assert rows[1]["error_class"] == "bad_line" and "has 2 columns, but the header has 5" in rows[1]["error"]
    assert rows[2]["error"] is None and rows[2]["reference_text"] is None and rows[2]["dialogue_id"] is None


def test_other_column_names(tmp_path: Path, wav: Path) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"key": "k", "wav": "audio/a.wav", "words": "Hello."}))
    columns = {"id": "key", "audio": "wav", "text": "words"}
    source = ManifestSource(kind="manifest", corpus="c", manifest=str(tmp_path / "m.jsonl"), columns=columns)
    (row,) = entries([source])
    assert (row[KEY], row["reference_text"]) == ("k", "Hello.")


def test_no_manifest_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.jsonl"):
        list(entries([ManifestSource(kind="manifest", corpus="c", manifest=str(tmp_path / "gone.jsonl"))]))


def test_librispeech_tree(tmp_path: Path) -> None:
    chapter = tmp_path / "dev-clean" / "84" / "121"
    chapter.mkdir(parents=True)
    soundfile.write(chapter / "84-121-0000.flac", np.random.default_rng(0).normal(0, 0.1, 32000), SAMPLE_RATE)
    soundfile.write(chapter / "84-121-0007.flac", np.zeros(16000), SAMPLE_RATE)
    (chapter / "84-121.trans.txt").write_text("84-121-0000 GO DO YOU HEAR\n84-121-0001 LOST\nnonsense line\n")
    source = LibriSpeechSource(kind="librispeech", tree=str(tmp_path), splits=["dev-clean"])
    rows = list(entries([source]))
    assert rows[0][KEY] == "84-121-0000" and rows[0]["reference_text"] == "go do you hear"
    assert (rows[0]["seconds"], rows[0]["speaker_id"], rows[0]["license"]) == (2.0, "84", "CC-BY-4.0")
    assert rows[1]["size"] is None and rows[2]["error_class"] == "bad_line"
    assert rows[3]["error"] == "84-121-0007.flac: 84-121.trans.txt has no line for it; add one, or remove the file"
    with pytest.raises(SourceError, match="test-clean"):
        list(entries([source.model_copy(update={"splits": ["test-clean"]})]))


@pytest.fixture
def audiofolder(tmp_path: Path) -> Path:
    pytest.importorskip("datasets")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE), SAMPLE_RATE)
    lines = [{"file_name": "a.wav", "sentence": "First."}, {"file_name": "b.wav", "sentence": "Second."}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_hugging_face_audiofolder(audiofolder: Path) -> None:
    source = HuggingFaceSource(kind="huggingface", corpus="hf", path="audiofolder", data_dir=str(audiofolder))
    rows = list(entries([source]))
    assert [row["reference_text"] for row in rows] == ["First.", "Second."]
    assert rows[0][KEY] == "hf-train-00000000"
    opened = source.open(rows[1]["locator"])
    assert isinstance(opened, Path) and opened.name == "b.wav"


def test_hugging_face_parquet_with_audio_bytes(audiofolder: Path, tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_dict(
        {"key": ["x", "y"], "audio": [str(audiofolder / "a.wav"), str(audiofolder / "b.wav")], "text": ["A.", "B."]}
    )
    embedded = table.cast_column("audio", datasets.Audio(decode=False)).map(
        lambda row: {"audio": {"bytes": Path(row["audio"]["path"]).read_bytes(), "path": "a.wav"}}
    )
    embedded.to_parquet(str(tmp_path / "data.parquet"))
    file = str(tmp_path / "data.parquet")
    source = HuggingFaceSource(kind="huggingface", corpus="hf", path="parquet", data_files=file, columns={"id": "key"})
    rows = list(entries([source]))
    assert [row[KEY] for row in rows] == ["x", "y"]
    assert rows[0]["size"] == (audiofolder / "a.wav").stat().st_size
    assert source.open(rows[0]["locator"]) == (audiofolder / "a.wav").read_bytes()


def test_hugging_face_paths_start_at_the_folder_of_the_table(
    tmp_path: Path, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the folder that the command runs in has files of the same names."""
    pytest.importorskip("datasets")
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.wav").write_bytes(name.encode())
        (tmp_path / name / "train.csv").write_text("file_name,text\n0.wav,Hi.\n")
    monkeypatch.chdir(tmp_path / "here")
    columns = {"audio": "file_name"}
    there = str(tmp_path / "there")
    by_path = HuggingFaceSource(kind="huggingface", corpus="hf", path=there, columns=columns)
    by_file = HuggingFaceSource(
        kind="huggingface", corpus="hf", path="csv", data_files=f"{there}/train.csv", columns=columns
    )
    for source in (by_path, by_file):
        (row,) = entries([source])
        opened = source.open(row["locator"])
        assert isinstance(opened, Path) and opened.read_bytes() == b"there"
    files = [f"{tmp_path}/{name}/train.csv" for name in ("here", "there")]
    several = HuggingFaceSource(kind="huggingface", corpus="hf", path="csv", data_files=files, columns=columns)
    with pytest.raises(SourceError, match="data_files are in several folders"):
        several.open("0")


def test_hugging_face_audio_without_any_other_column(tmp_path: Path, wav: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"audio": [wav.read_bytes()] * 2}).to_parquet(str(tmp_path / "d.parquet"))
    source = HuggingFaceSource(kind="huggingface", corpus="hf", path="parquet", data_files=str(tmp_path / "d.parquet"))
    assert [row["error"] for row in entries([source])] == [None, None]


def test_hugging_face_without_audio_says_what_to_name(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"sound": ["x"]}).to_parquet(str(tmp_path / "d.parquet"))
    source = HuggingFaceSource(kind="huggingface", corpus="hf", path="parquet", data_files=str(tmp_path / "d.parquet"))
    with pytest.raises(
        SourceError, match=r"no audio column among sound; name it in the source's `columns: {audio: NAME}`"
    ):
        list(entries([source]))


def test_spoken_lines_become_speech(tmp_path: Path) -> None:
    lines = [{"id": "one", "text": "Hello there."}, {"id": "two"}, {"id": "three", "text": "  "}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = SpokenSource(kind="spoken", corpus="s", texts=str(tmp_path / "t.jsonl"))
    rows = list(entries([source]))
    assert [row["error_class"] for row in rows] == [None, "bad_line", "bad_line"]
    waveform, rate = source.open(rows[0]["locator"])
    again, _ = source.open(rows[0]["locator"])
    assert rate == SAMPLE_RATE and 0.5 < len(waveform) / rate < 2
    assert np.array_equal(waveform, again)


VOICE = {"speed": 1.2, "pitch": -2, "gain_db": -6.0, "snr_db": 20, "noise": "pink"}


def spoken(folder: Path, lines: list[dict[str, Any]]) -> tuple[SpokenSource, list[dict[str, Any]]]:
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = SpokenSource(kind="spoken", corpus="s", texts=str(folder / "t.jsonl"))
    return source, list(entries([source]))


def test_a_line_says_how_it_is_spoken(tmp_path: Path) -> None:
    text = "Where is the old bridge?"
    voices: list[dict[str, Any]] = [{}, {"voice": {}}, {"voice": {"speed": 1}}, {"voice": VOICE}]
    source, rows = spoken(tmp_path, [{"id": str(number), "text": text} | voice for number, voice in enumerate(voices)])
    assert [row["error"] for row in rows] == [None] * 4
    assert [row["locator"] for row in rows[:3]] == [text] * 3  # as it was before lines had a voice
    assert rows[3]["reference_text"] == text
    assert rows[3]["seconds"] == pytest.approx(rows[0]["seconds"] / 1.2)
    plain, varied = (source.open(row["locator"])[0] for row in (rows[0], rows[3]))
    assert np.array_equal(varied, source.open(rows[3]["locator"])[0])
    assert len(varied) == pytest.approx(len(plain) / 1.2, rel=0.1)
    assert not np.array_equal(varied, source.model_copy(update={"voice_seed": 1}).open(rows[3]["locator"])[0])


def test_a_text_that_looks_like_a_locator_is_a_text(tmp_path: Path) -> None:
    text = json.dumps({"text": "Good morning.", "voice": {"speed": 2}})
    source, rows = spoken(tmp_path, [{"id": "a", "text": text}, {"id": "b", "text": "Good morning."}])
    assert len(source.open(rows[0]["locator"])[0]) > 1.5 * len(source.open(rows[1]["locator"])[0])


@pytest.mark.parametrize(
    ("voice", "says"),
    [
        ("heart", "voice 'heart': Input should be a valid dictionary"),
        ({"speed": "fast"}, "voice.speed 'fast': Input should be a valid number"),
        ({"speed": True}, "voice.speed True: Input should be a valid number"),
        ({"speed": 0}, "voice.speed 0: Input should be greater than or equal to 0.5"),
        ({"speed": None}, "voice.speed None: "),
        ({"pitch": 12}, "voice.pitch 12: Input should be less than or equal to 6"),
        ({"gain_db": float("nan")}, "voice.gain_db nan: Input should be a finite number"),
        ({"gain_db": 10**400}, "voice.gain_db "),
        ({"snr_db": -60}, "voice.snr_db -60: "),
        ({"noise": "brown"}, "voice.noise 'brown': Input should be 'white' or 'pink'"),
        ({"volume": 1}, "voice.volume 1: Extra inputs are not permitted"),
    ],
)
def test_a_bad_voice_is_a_bad_line(tmp_path: Path, voice: Any, says: str) -> None:
    _, rows = spoken(tmp_path, [{"id": "a", "text": "Hi."}, {"id": "b", "text": "Hi.", "voice": voice}])
    assert [row["error_class"] for row in rows] == [None, "bad_line"]
    assert rows[1]["error"].startswith(f"t.jsonl:2: {says}")


def mls_tree(folder: Path, transcripts: str, segments: str) -> None:
    audio = folder / "train" / "audio" / "10" / "20"
    audio.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE)
    soundfile.write(audio / "10_20_000001.flac", noise, SAMPLE_RATE)
    (folder / "train" / "transcripts.txt").write_text(transcripts)
    (folder / "train" / "segments.txt").write_text(segments)


def test_mls_tree(tmp_path: Path) -> None:
    lines = "10_20_000001\tfirst words\n10_20_000002\tlost\n10_20_000003\n../../x\ttext\n"
    mls_tree(tmp_path, lines, "10_20_000001\thttp://x\t1.5\t4.0\n10_20_000002\thttp://x\tnone\t2\n")
    source = MlsSource(kind="mls", tree=str(tmp_path))
    rows = list(entries([source]))
    assert [row["error_class"] for row in rows] == [None, None, "bad_line", "bad_line"]
    assert (rows[0][KEY], rows[0]["reference_text"], rows[0]["speaker_id"]) == ("10_20_000001", "first words", "10")
    assert rows[0]["seconds"] == 2.5 and source.open(rows[0]["locator"]) == tmp_path / rows[0]["locator"]
    assert rows[1]["size"] is None and rows[1]["seconds"] == 0.0
    assert "transcripts.txt, line 3: is not an utterance id, a tab and a text" in rows[2]["error"]
    with pytest.raises(SourceError, match="dev"):
        list(entries([source.model_copy(update={"splits": ["dev"]})]))


def test_a_share_of_mls(tmp_path: Path) -> None:
    keys = [f"10_20_{number:06d}" for number in range(2000)]
    mls_tree(tmp_path, "".join(f"{key}\ttext\n" for key in keys), "")
    taken = {
        share: [row[KEY] for row in entries([MlsSource(kind="mls", tree=str(tmp_path), share=share)])]
        for share in (0.1, 0.2, 1.0)
    }
    assert taken[1.0] == keys and set(taken[0.1]) < set(taken[0.2])
    assert 150 < len(taken[0.1]) < 250 and 340 < len(taken[0.2]) < 460


def dialogues(folder: Path, listed: Any, **parameters: Any) -> tuple[DialoguesSource, list[dict[str, Any]]]:
    archive = folder / "set" / "part-0"
    archive.mkdir(parents=True, exist_ok=True)
    for name in ("q", "a"):
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE)
        soundfile.write(archive / f"{name}.wav", noise, SAMPLE_RATE)
    (archive / "data.json").write_text(listed if isinstance(listed, str) else json.dumps(listed))
    source = DialoguesSource(kind="dialogues", corpus="c", tree=str(folder), subsets=["set"], **parameters)
    return source, list(entries([source]))


TURNS = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Hello?", "audio": "q.wav"},
    {"from": "gpt", "value": "Yes.", "audio": "a.wav"},
]


def test_dialogues(tmp_path: Path) -> None:
    other = [{"role": "user", "content": "Hello?", "audio": "q.wav"}, {"role": "assistant", "content": "Yes."}]
    source, rows = dialogues(tmp_path, [{"conversations": TURNS}, {"conversations": other}])
    assert [row[KEY] for row in rows[:3]] == [
        "c-set-part-0-000000-0",
        "c-set-part-0-000000-1",
        "c-set-part-0-000001-0",
    ]
    assert [(row["role"], row["turn"], row["reference_text"]) for row in rows[:3]] == [
        ("user", 0, "Hello?"),
        ("assistant", 1, "Yes."),
        ("user", 0, "Hello?"),
    ]
    assert rows[0]["dialogue_id"] == rows[1]["dialogue_id"] != rows[2]["dialogue_id"]
    assert rows[0]["seconds"] == 1.0 and source.open(rows[1]["locator"]) == tmp_path / "set" / "part-0" / "a.wav"
    assert "data.json[1] turn 1 has no audio; if only the others speak, leave assistant out" in rows[3]["error"]
    _, users = dialogues(tmp_path, [{"conversations": TURNS}, {"conversations": other}], roles=["user"])
    assert [row["error"] for row in users] == [None, None]


@pytest.mark.parametrize(
    ("dialogue", "says"),
    [
        ("nonsense", "is not an object with a list 'conversations'"),
        ({"conversations": None}, "is not an object with a list 'conversations'"),
        ({"conversations": ["turn"]}, "has the role None; expected one of human, user"),
        ({"conversations": [{"from": "human", "value": "\ud800", "audio": "q.wav"}]}, "is not text"),
        ({"conversations": [{"from": "bird", "audio": "q.wav"}]}, "has the role 'bird'"),
        ({"conversations": [{"from": "human", "audio": "../../../x.wav"}]}, "leads out of the manifest's folder"),
        ({"conversations": [{"from": "human", "audio": {"path": "q.wav"}}]}, "has no audio path"),
    ],
)
def test_bad_dialogues_are_entries_with_an_error(tmp_path: Path, dialogue: Any, says: str) -> None:
    _, rows = dialogues(tmp_path, [dialogue, {"conversations": TURNS}])
    assert [row["error_class"] for row in rows] == ["bad_line", None, None]
    assert says in rows[0]["error"] and "data.json[0] turn 0" in rows[0]["error"]


@pytest.mark.parametrize(("text", "says"), [("[", "data.json: "), ("{}", "expected a list of dialogues")])
def test_a_list_of_dialogues_that_is_none_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        dialogues(tmp_path, text)


def test_archives_that_are_not_unpacked_say_so(tmp_path: Path) -> None:
    source, _ = dialogues(tmp_path, [{"conversations": TURNS}])
    with pytest.raises(SourceError, match="other: has no <archive>/data"):
        list(entries([source.model_copy(update={"subsets": ["set", "other"]})]))
