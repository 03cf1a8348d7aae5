"""A value is what its column means, in every source: the records that people really have."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.transforms.sources.base import Item
from echo_targets.transforms.sources.dialogues import DialoguesSource
from echo_targets.transforms.sources.librispeech import LibriSpeechSource
from echo_targets.transforms.sources.mls import MlsSource
from echo_targets.transforms.sources.record import Fields, item_from
from echo_targets.transforms.sources.spoken import SpokenSource
from echo_targets.transforms.sources.values import BadLine
from tests.transforms.rows import run_stages
from tests.transforms.sources.small_sources import first, manifest, parquet

NAN, INF = math.nan, math.inf
GIVEN = Path(__file__).parents[4] / "shared" / "cases" / "records.jsonl"
TEXT = {"text": "easy going"}
IN_DIALOGUE = TEXT | {"dialogue_id": "d"}
NO_TEXT, BAD = {"text": None}, {"error_class": "bad_line"}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "NaN as text": ({"text": NAN, "speaker": NAN}, {"text": None, "speaker_id": None}, ""),
    "list as text": ({"text": ["easy", "going"]}, BAD, "`text` is a list"),
    "object as text": ({"text": {"en": "easy going"}}, BAD, "`text` is an object"),
    "boolean as text": ({"text": False}, BAD, "`text` is a boolean"),
    "number as text": ({"text": 5.0}, BAD, "`text` is a number"),
    "integer as text": ({"text": 1984}, {"text": "1984"}, ""),
    "the word None": ({"text": "None"}, {"text": "None"}, ""),
    "the word nan": ({"text": "nan"}, {"text": "nan"}, ""),
    "blank text": ({"text": "   "}, NO_TEXT, ""),
    "no-break space as text": ({"text": "\u00a0"}, NO_TEXT, ""),
    "zero-width space as text": ({"text": "\u200b"}, NO_TEXT, ""),
    "a mark of direction as text": ({"text": "\u200e\u2028"}, NO_TEXT, ""),
    "space before the text": ({"text": "  easy going"}, {"text": "easy going"}, ""),
    "marks around the text": ({"text": "\ufeff\u3000easy going\u200b\n"}, {"text": "easy going"}, ""),
    "joiners inside words": ({"text": "می‌خواهم क्‍ष"}, {"text": "می‌خواهم क्‍ष"}, ""),
    "composed and not": ({"text": "e\u0301 \u00e9"}, {"text": "e\u0301 \u00e9"}, ""),
    "separators inside": ({"text": "a\u2028b\u0085c\x0bd\x0ce"}, {"text": "a\u2028b\u0085c\x0bd\x0ce"}, ""),
    "NUL inside": ({"text": "a\0b"}, BAD, "`text` holds a NUL"),
    "fractional turn": (IN_DIALOGUE | {"turn": 1.7}, BAD, "turn 1.7 is not a whole number"),
    "infinite turn": (IN_DIALOGUE | {"turn": INF}, BAD, "turn inf is not a number"),
    "boolean turn": (IN_DIALOGUE | {"turn": True}, BAD, "turn True is not a number"),
    "turn as a float": (IN_DIALOGUE | {"turn": 1.0}, {"turn": 1}, ""),
    "turn as a word": (IN_DIALOGUE | {"turn": "3"}, {"turn": 3}, ""),
    "turn with an underscore": (IN_DIALOGUE | {"turn": "1_0"}, BAD, "turn '1_0' is not a number"),
    "infinite channel": (TEXT | {"channel": INF}, BAD, "channel inf is not a number"),
    "boolean channel": (TEXT | {"channel": True}, BAD, "channel True is not a number"),
    "channel as a float": (TEXT | {"channel": 1.0}, {"channel": 1}, ""),
    "text in another case": ({"Text": "Going."}, BAD, "has `Text` instead of `text`: set `columns: {text: Text}`"),
    "normalized text alone": ({"normalized_text": "going"}, BAD, "has `normalized_text` instead of `text`"),
    "normalized text beside the text": ({"text": "Going.", "normalized_text": "going"}, {"text": "Going."}, ""),
    "no text and an empty other": ({"txt": " "}, {"text": None}, ""),
    "channel by its name": (TEXT | {"channel": "Right"}, {"channel": 1}, ""),
    "channel by another name": (TEXT | {"channel": "A"}, BAD, "expected a channel from 0, or left, right, average"),
    "channels as a list": (TEXT | {"channel": [0]}, BAD, "channel [0] is not a number"),
    "NaN as dialogue and turn": (TEXT | {"dialogue_id": NAN, "turn": NAN}, {"dialogue_id": None, "turn": None}, ""),
    "an integer as dialogue": (TEXT | {"dialogue_id": 7.0, "turn": 0}, {"dialogue_id": "7"}, ""),
    "offset and duration": (
        {"text": "going", "offset": 0.5, "duration": 0.8},
        {"start_seconds": 0.5, "section_seconds": 0.8, "declared_seconds": None, "seconds": 0.8},
        "",
    ),
    "start and end": (
        {"text": "going", "start": 0.5, "end": 1.3},
        {"start_seconds": 0.5, "section_seconds": 0.8, "declared_seconds": None, "seconds": 0.8},
        "",
    ),
    "start, end and duration": (
        {"start": "0.5", "end": "1.3", "duration": "0.80"},
        {"start_seconds": 0.5, "section_seconds": 0.8},
        "",
    ),
    "offset to the end": (
        {"offset": 0.5, "duration": None},
        {"start_seconds": 0.5, "section_seconds": None, "seconds": 1.5},
        "",
    ),
    "duration": ({"duration": 2.0}, {"start_seconds": None, "section_seconds": None, "declared_seconds": 2.0}, ""),
    "unknown duration": ({"duration": 0}, {"declared_seconds": None, "seconds": 2.0}, ""),
    "NaN as duration": ({"duration": "nan", "offset": "NaN"}, {"declared_seconds": None, "start_seconds": None}, ""),
    "end before start": ({"start": 1.3, "end": 0.5}, BAD, "`end` 0.5 is not after `start` 1.3"),
    "end and another duration": ({"start": 0, "end": 0.5, "duration": 2.0}, BAD, "`duration` is 2: remove one"),
    "a section of no length": ({"offset": 0.5, "duration": 0}, BAD, "with `offset` it is a section's length"),
    "negative offset": ({"offset": -0.5, "duration": 1}, BAD, "offset -0.5 is outside"),
    "offset with a comma": (
        {"offset": "0,5", "duration": 1},
        BAD,
        "offset '0,5' is not a number; write it with a point",
    ),
    "other times": (
        TEXT | {"start_time": 0.5, "end_time": 1.3},
        BAD,
        "`start_time` is not supported: name the section",
    ),
    "times in another case": (TEXT | {"beginTime": 0.5}, BAD, "`beginTime` is not supported"),
    "times that are missing": (TEXT | {"begin_time": NAN, "end_time": None}, {"text": "easy going"}, ""),
    "channels": (TEXT | {"channels": 2}, BAD, "`channels` is not supported: name the channel"),
    "speed": (TEXT | {"speed": 1.1}, BAD, "`speed` is not supported"),
    "a file with the text": ({"text_filepath": "a.txt"}, BAD, "`text_filepath` is not supported: write the text"),
    "a translation": (TEXT | {"source_lang": "en", "target_lang": "de"}, BAD, "the text is a translation"),
    "no translation": (TEXT | {"source_lang": "en", "target_lang": "EN"}, {"language": "en"}, ""),
    "harmless columns": (
        TEXT | {"up_votes": 2, "age": "", "gender": "male", "accents": None, "snr": 30.5, "segment": "Benchmark"},
        {"text": "easy going"},
        "",
    ),
    "client": (TEXT | {"client_id": "c"}, {"speaker_id": "c"}, ""),
    "speaker and client that agree": (TEXT | {"speaker": 7, "client_id": "7"}, {"speaker_id": "7"}, ""),
    "speaker and client that differ": (
        TEXT | {"speaker": "a", "client_id": "b"},
        BAD,
        "`columns: {speaker_id: speaker}`",
    ),
    "speaker as a float": (TEXT | {"speaker": 84.0}, {"speaker_id": "84"}, ""),
    "language by its name": (TEXT | {"language": "English"}, {"language": "en"}, ""),
    "language in capitals": (TEXT | {"lang": "EN-us"}, {"language": "en-US"}, ""),
    "language of three letters": (TEXT | {"lang": "deu"}, {"language": "de"}, ""),
    "language and locale": (TEXT | {"language": "English", "locale": "en-GB"}, {"language": "en"}, ""),
    "no language": (TEXT | {"language": "Klingonese"}, BAD, "expected a language's code (BCP 47), such as en or pt-BR"),
    "a list as language": (TEXT | {"language": ["en"]}, BAD, "`language` is ['en']; expected a language's code"),
}
IDS: dict[str, tuple[Any, str | None]] = {
    "an integer": (7, "7"),
    "a float": (7.0, "7"),
    "a fraction": (7.5, None),
    "a boolean": (True, None),
    "a list": (["a"], None),
    "a newline inside": ("a\nb", None),
    "a NUL inside": ("a\0b", None),
    "a separator inside": ("a\u2028b", None),
    "spaces around": (" a ", "a"),
    "NaN": (NAN, None),
    "blank": (" ", None),
    "digits lost": (1e20, None),
}


def expect(item: Item, want: dict[str, Any], says: str) -> None:
    assert {name: getattr(item, name) for name in want} == want, item.error
    assert says in (item.error or "") and (item.error is None) == (want.get("error_class") is None)


@pytest.mark.parametrize("case", CASES)
def test_a_line_of_a_manifest(folder: Path, case: str) -> None:
    given, want, says = CASES[case]
    item = first(manifest(folder, json.dumps({"id": "u", "audio": "a.flac"} | given)))
    expect(item, want, says)
    assert want is not BAD or "m.jsonl, line 1: " in str(item.error)


def cell(value: Any) -> str:
    """A value as pandas writes it."""
    return "" if value is None or value != value else str(value)


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_a_tsv(folder: Path, case: str) -> None:
    given, want, says = CASES[case]
    if any(isinstance(value, list | dict | bool) or "\n" in str(value) for value in given.values()):
        pytest.skip("a cell can't hold it")
    as_written = {
        "number as text": {"text": "5.0"},
        "an integer as dialogue": {"dialogue_id": "7.0"},
        "speaker as a float": {"speaker_id": "84.0"},
    }
    want, says = (as_written[case], "") if case in as_written else (want, says)
    row = {"id": "u", "audio": "a.flac"} | given
    text = "\t".join(row) + "\n" + "\t".join(map(cell, row.values()))
    says = says.replace("turn inf", "turn 'inf'").replace("channel inf", "channel 'inf'")
    expect(first(manifest(folder, text, "m.tsv")), want, says)


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_numpy_s_types(case: str) -> None:
    pandas = pytest.importorskip("pandas")
    given, want, says = CASES[case]
    if "a.flac" in str(given) or "seconds" in want:
        pytest.skip("looks at the file")
    missing = {name: pandas.NA if value is None or value != value else value for name, value in given.items()}
    numpy = {name: np.asarray(value)[()] if np.isscalar(value) else value for name, value in missing.items()}
    try:
        item = item_from(Fields()({"id": np.int64(1), "audio": "a.flac"} | numpy), "here")
    except BadLine as error:
        item = Item("", "", error_class="bad_line", error=str(error))
    expect(item, want, says.split(" ")[0])


@pytest.mark.parametrize("case", IDS)
def test_an_id(folder: Path, case: str) -> None:
    given, want = IDS[case]
    item = first(manifest(folder, json.dumps({"id": given, "audio": "a.flac"})))
    assert (item.id == want and item.error is None) if want else item.error_class == "bad_line"


def test_the_given_cases(folder: Path) -> None:
    """Read as they are, where they are; what each must become stands above under its name."""
    if not GIVEN.is_file():
        pytest.skip(f"{GIVEN} is not there")
    for line in GIVEN.read_text().splitlines():
        case = json.loads(line)
        item = first(manifest(folder, json.dumps(case["record"])))
        if case["case"] == "file URL":
            assert item.error is None and item.locator == "/somewhere/a.flac"
        else:
            _, want, says = CASES[case["case"].removesuffix(" (NeMo)")]
            expect(item, want, says)


def test_rows_of_parquet(folder: Path) -> None:
    """What Arrow's types may change; each file is of cases whose columns have one type."""
    pytest.importorskip("datasets")
    kinds = [
        ["NaN as text"],
        ["list as text"],
        ["object as text"],
        ["fractional turn", "infinite channel", "offset and duration", "other times"],
        ["NaN as dialogue and turn"],
    ]
    for number, names in enumerate(kinds):
        rows = [{"id": name, "audio": str(folder / "a.flac")} | CASES[name][0] for name in names]
        keys = dict.fromkeys(key for row in rows for key in row)
        columns = {key: pa.array([row.get(key) for row in rows], from_pandas=False) for key in keys}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
        for name, item in zip(names, parquet(folder / f"{number}.parquet").items(), strict=True):
            expect(item, {key: value for key, value in CASES[name][1].items() if key != "seconds"}, CASES[name][2])


def test_texts_to_speak(tmp_path: Path) -> None:
    records = [
        {"id": "blank", "text": "\u00a0\u200b"},
        {"id": "missing", "text": NAN},
        {"id": "list", "text": ["Hello"]},
        {"id": "section", "text": "Hello.", "start": 0.5},
        {"id": "speed", "text": "Hello.", "speed": 1.1},
        {"id": "good", "text": " Hello.\u200b", "duration": 99, "voice": NAN},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    *bad, good = SpokenSource(kind="spoken", corpus="s", texts=str(tmp_path / "t.jsonl")).items()
    says = ["no text to speak", "no text to speak", "`text` is a list", "no audio file to cut", "into `voice`"]
    assert all(word in str(item.error) for word, item in zip(says, bad, strict=True)), bad
    assert (good.text, good.locator, good.declared_seconds) == ("Hello.", "Hello.", None)


TURNS: list[tuple[Any, str | None, str]] = [
    (" Yes.\n", "Yes.", ""),
    ("\u200b", None, ""),
    (NAN, None, ""),
    (None, None, ""),
    (["Yes."], None, "`value` is a list"),
    (False, None, "`value` is a boolean"),
    ("a\u2028b", "a\u2028b", ""),
]


@pytest.mark.parametrize(("value", "text", "says"), TURNS)
def test_turns_of_dialogues(folder: Path, value: Any, text: str | None, says: str) -> None:
    archive = folder / "set" / "part"
    archive.mkdir(parents=True)
    turns = [{"from": "human", "value": value, "audio": "../../a.flac"}, {"from": "gpt", "value": "ok", "audio": "q"}]
    turns[0]["audio"] = (folder / "a.flac").as_uri()
    (archive / "data.json").write_text(json.dumps([{"conversations": turns}]))
    item = first(DialoguesSource(kind="dialogues", corpus="c", tree=str(folder), subsets=["set"]))
    expect(item, BAD if says else {"text": text, "seconds": 2.0}, says)


TRANSCRIPTS = b"%(0)s \xc3\xa9asy\xe2\x80\xa8going\xc2\x85on\x0b\x0c \n\n%(1)s\t\xe2\x80\x8b\r\n%(2)s caf\xe9\n%(3)s ok"


def test_trees_keep_whole_texts(tmp_path: Path) -> None:
    """U+2028, U+0085, VT and FF are no line ends; Latin-1 is one bad line; blank texts are none."""
    keys = [f"84-121-000{number}" for number in range(4)]
    (tmp_path / "dev" / "84" / "121").mkdir(parents=True)
    path = tmp_path / "dev" / "84" / "121" / "84-121.trans.txt"
    path.write_bytes(TRANSCRIPTS % {str(number).encode(): key.encode() for number, key in enumerate(keys)})
    libri = list(LibriSpeechSource(kind="librispeech", tree=str(tmp_path), splits=["dev"]).items())
    assert [item.text for item in libri] == ["éasy\u2028going\u0085on", None, None, "ok"]
    assert libri[2].error and "84-121.trans.txt, line 4: is not UTF-8 (byte 0xe9 at 15); convert" in libri[2].error
    assert [item.error is None for item in libri] == [True, True, False, True]

    keys = [key.replace("-", "_") for key in keys]
    (tmp_path / "train").mkdir()
    text = TRANSCRIPTS % {str(number).encode(): key.encode() for number, key in enumerate(keys)}
    (tmp_path / "train" / "transcripts.txt").write_bytes(text.replace(b" \xc3", b"\t\xc3").replace(b"3 ok", b"3\tok"))
    (tmp_path / "train" / "segments.txt").write_bytes(b"x\xe9\n")
    mls = list(MlsSource(kind="mls", tree=str(tmp_path)).items())
    assert [item.text for item in mls] == ["éasy\u2028going\u0085on", None, None, "ok"]
    assert mls[2].error and "transcripts.txt, line 4: is not UTF-8" in mls[2].error


def test_characters_of_an_alignment_cut_the_stored_text(tmp_path: Path) -> None:
    texts = ["  Easy going,\u00a0they said.", "\ufeff\u201cNo!\u201d She left. ", "\u200b"]
    lines = [{"id": str(number), "text": text or "x"} for number, text in enumerate(texts)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "spoken", "corpus": "s", "texts": str(tmp_path / "t.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}, "transcribe": {}, "align": {}})
    stored = {row[KEY]: row["reference_text"] for row in dataset.read("utterances").to_pylist()}
    assert stored == {"0": "Easy going,\u00a0they said.", "1": "\u201cNo!\u201d She left."}
    for row in dataset.read("alignments").to_pylist():
        text, words = stored[row[KEY]], row["items"]
        assert [text[word["char_start"] : word["char_end"]] for word in words] == [word["symbol"] for word in words]
        assert len(words) >= 3 and words[0]["symbol"] in ("Easy", "No")
    assert list(check_dataset(str(dataset.root))) == []
