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
import soundfile
from pydantic import ValidationError

from echo_targets.pipeline.plan import plan
from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.sources.base import Item, Source, SourceError
from echo_targets.transforms.sources.dialogues import DialoguesSource
from echo_targets.transforms.sources.huggingface import HuggingFaceSource
from echo_targets.transforms.sources.librispeech import LibriSpeechSource
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.mls import MlsSource
from echo_targets.transforms.sources.record import Fields, item_from
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.sources.spoken import SpokenSource
from echo_targets.transforms.sources.values import BadLine
from tests.transforms.rows import run_stages

NAN, INF = math.nan, math.inf
GIVEN = Path(__file__).parents[4] / "shared" / "cases" / "records.jsonl"
TONE = np.sin(np.arange(2 * SAMPLE_RATE) * 0.05) * 0.3
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.flac", TONE, SAMPLE_RATE)
    return tmp_path


def manifest(folder: Path, text: str | bytes, name: str = "m.jsonl", **parameters: Any) -> ManifestSource:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return ManifestSource(kind="manifest", corpus="c", manifest=str(folder / name), **parameters)


def first(source: Source) -> Item:
    return next(iter(source.items()))


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


def parquet(file: Path, **parameters: Any) -> HuggingFaceSource:
    return HuggingFaceSource(kind="huggingface", corpus="hf", path="parquet", data_files=str(file), **parameters)


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


# -- files -----------------------------------------------------------------------------------------------------------

LINE = '{"id": "%s", "audio": "a.flac", "text": "%s"}'


def texts(source: ManifestSource) -> list[str | None]:
    return [item.error or item.text for item in source.items()]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n"])
def test_line_ends(folder: Path, end: str, last: str) -> None:
    lines = f"{LINE}\n\n{LINE}{last}" % ("a", "x\u2028y\u0085z", "b", "q")
    lines = lines.replace("\n", end)
    assert texts(manifest(folder, lines)) == ["x\u2028y\u0085z", "q"]
    rows = f"id\taudio\ttext\na\ta.flac\tx\u2028y\x0bz\n\nb\ta.flac\tq{last}".replace("\n", end)
    assert texts(manifest(folder, rows, "m.tsv")) == ["x\u2028y\x0bz", "q"]


def test_a_carriage_return_inside_a_cell_ends_no_line(folder: Path) -> None:
    assert texts(manifest(folder, "id\taudio\ttext\na\ta.flac\tx\ry\nb\ta.flac\tq\n", "m.tsv")) == ["x\ry", "q"]


def test_a_long_cell_is_whole_and_a_line_that_is_too_long_is_one_bad_line(folder: Path) -> None:
    rows = f"id\taudio\ttext\na\ta.flac\t{'x' * 200_000}\nb\ta.flac\t{'y' * 3_000_000}\nc\ta.flac\tq\n"
    found = texts(manifest(folder, rows, "m.tsv"))
    assert found[0] == "x" * 200_000 and "line 3: is longer than" in str(found[1]) and found[2:] == ["q"]
    found = texts(manifest(folder, "\n".join([LINE % ("a", "y" * 3_000_000), LINE % ("b", "q")])))
    assert "line 1: is longer than" in str(found[0]) and found[1:] == ["q"]


def test_quotes_in_a_tsv(folder: Path) -> None:
    """As Common Voice has them: characters, and not always two. As pandas and R write them: doubled, or around all."""
    said = ['"では、危険だということですか？"と彼は言った。', 'He said "no.', '"Yes."', "it's"]
    rows = "".join(f"{number}\ta.flac\t{text}\n" for number, text in enumerate(said))
    assert texts(manifest(folder, f"id\taudio\ttext\n{rows}", "m.tsv")) == said
    assert texts(manifest(folder, 'id\taudio\ttext\n1\ta.flac\t"""Hi"" he said"\n', "m.tsv")) == ['"Hi" he said']
    assert texts(manifest(folder, '"id"\t"audio"\t"text"\n"1"\t"a.flac"\t"Hi"\n', "m.tsv")) == ["Hi"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("m.tsv", "id\taudio\ttext\ttext\n1\ta.flac\ta\tb", "two columns of the header are named 'text'"),
        ("m.tsv", "id\taudio\t\n1\ta.flac\ta", "column 3 of the header has no name"),
        ("m.tsv", "", "is empty, expected a header line"),
        ("m.tsv", "id\taudio\ttext\n", "m.tsv has no items"),
        ("m.tsv", "u\ta.flac\tHello.\nv\ta.flac\tYes.", "line 2: has no id; name the key"),
        ("m.tsv", "id\taudio\ttext\n1\ta.flac\tHi".encode("utf-16"), "is UTF-16; convert it: iconv"),
        ("m.tsv", "id\taudio\tcafé\n1\ta.flac\tHi".encode("latin-1"), "line 1 is not UTF-8 (byte 0xe9 at 12)"),
        ("m.csv", "id,audio,text\n1,a.flac,Hi", "is comma-separated; save it tab-separated, as .tsv"),
        ("m.jsonl", "", "m.jsonl has no items"),
        ("m.jsonl", "\n \n\u200b\n", "m.jsonl has no items"),
        (
            "m.jsonl",
            json.dumps([{"id": "a", "audio": "a.flac"}], indent=1),
            "is a single JSON array; expected JSON lines",
        ),
        ("m.jsonl", '{"id": "a"}\n{"id": "b"}', "none of the 2 items"),
        ("m.jsonl", (LINE % ("a", "b")).encode("utf-16-le"), "is UTF-16"),
        ("m.jsonl", b"PAR1\x15\x04", "is a Parquet file; use it with kind: huggingface"),
        ("m.jsonl", b"\x1f\x8b\x08\x00", "is a gzip archive; unpack it"),
    ],
)
def test_files_that_are_no_manifest(folder: Path, name: str, text: str | bytes, says: str) -> None:
    with pytest.raises(SourceError) as raised:
        list(entries([manifest(folder, text, name)]))
    assert says in str(raised.value) and name in str(raised.value)


def test_pandas_index_has_no_name(folder: Path) -> None:
    assert texts(manifest(folder, "\tid\taudio\ttext\n0\tu\ta.flac\tHi\n", "m.tsv")) == ["Hi"]


def test_bad_lines_of_a_manifest_are_one_each(folder: Path) -> None:
    lines = [
        LINE % ("a", "one"),
        '{"id": "b", "audio": "a.flac", "text": "one", "text": "two"}',
        LINE % ("c", "x\ty"),
        LINE % ("x", "x") + LINE % ("y", "y"),
        (LINE % ("d", "café")).encode("latin-1"),
        b"\xef\xbb\xbf" + (LINE % ("e", "last")).encode(),
    ]
    text = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    found = texts(manifest(folder, text))
    assert found[0] == "one" and found[5] == "last"
    assert "line 2: has `text` twice, with different values" in str(found[1])
    assert "line 3: is not JSON" in str(found[2])
    assert "line 4: is not JSON (Extra data" in str(found[3])
    assert "line 5: is not UTF-8 (byte 0xe9 at 43); convert the file" in str(found[4])


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        ("file:///{}/a%2Eflac", None),
        ("file://localhost{}/a.flac", None),
        ("FILE:{}/a.flac", None),
        ("sub\\a.flac", None),
        ("file://server/a.flac", "is on the host 'server'"),
        ("file:a.flac", "is not a file URL; write file:///PATH"),
        ("file:///a%00b", "holds a NUL"),
        ("file:///a%ff", "is not UTF-8"),
        ("..\\a.flac", "leads out of"),
        (["a.flac"], "`audio` is a list; expected a path"),
        ({"array": [0.1], "sampling_rate": 16_000}, "`audio` is an object; expected a path"),
        (7, "`audio` is an integer; expected a path"),
        (" ", "has no audio path; name the key that holds it in the source's `columns: {audio: NAME}`"),
        ("ftq://host/a.flac", "ftq"),
    ],
)
def test_places_of_audio(folder: Path, audio: Any, says: str | None) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.flac").write_bytes((folder / "a.flac").read_bytes())
    audio = audio.format(folder) if isinstance(audio, str) else audio
    item = first(manifest(folder, json.dumps({"id": "a", "audio": audio})))
    if says:
        assert item.error and says in item.error
    else:
        assert item.size == (folder / "a.flac").stat().st_size and item.seconds == 2.0


def test_columns_that_are_not_there(folder: Path) -> None:
    with pytest.raises(ValidationError, match="'speaker' is not a field; the fields are id, audio, text"):
        manifest(folder, "", columns={"speaker": "s"})
    with pytest.raises(
        SourceError, match=r"columns\.text is 'txet', but no line has it; the first line has id, audio, text"
    ):
        list(manifest(folder, LINE % ("a", "b"), columns={"text": "txet"}).items())
    given = {"id": "a", "audio": "a.flac", "begin_time": 0.5, "end_time": 1, "speed": 2, "text": "x", "sentence": "y"}
    columns = {"start": "begin_time", "end": "end_time", "text": "sentence"}
    item = first(manifest(folder, json.dumps(given), columns=columns, ignore=["speed"]))
    assert (item.text, item.start_seconds, item.section_seconds) == ("y", 0.5, 0.5)


def test_a_source_s_language_is_a_code(folder: Path) -> None:
    assert manifest(folder, "", language="German").language == "de"
    with pytest.raises(ValidationError, match="expected a language's code"):
        manifest(folder, "", language="Klingonese")


def test_nothing_becomes_no_version(tmp_path: Path) -> None:
    empty = plan([], 1.0)
    assert empty.num_entries == 0  # a dry run may say so
    with pytest.raises(UserError, match=r"there are no items to plan\. Name sources"):
        empty.commit(Dataset(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


# -- audio in data sets ----------------------------------------------------------------------------------------------

SHORT = (TONE[:8000]).astype(np.float32)
STRUCT = pa.struct([("array", pa.list_(pa.float32())), ("sampling_rate", pa.int64())])
PATHS = pa.struct([*STRUCT, ("path", pa.string())])
FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def sound(folder: Path, kind: pa.DataType, values: list[Any], **columns: list[Any]) -> HuggingFaceSource:
    pytest.importorskip("datasets")
    table = pa.table({"audio": pa.array(values, kind), "text": ["Hi."] * len(values)} | columns)
    pq.write_table(table, folder / "d.parquet")
    return parquet(folder / "d.parquet")


def test_audio_in_every_form(folder: Path) -> None:
    file = (folder / "a.flac").read_bytes()
    in_16_bits = np.rint(SHORT * 32768).astype(np.int16)
    forms: list[tuple[pa.DataType, Any, dict[str, list[Any]]]] = [
        (STRUCT, {"array": SHORT, "sampling_rate": 8000}, {}),
        (pa.list_(pa.float64()), SHORT, {"sampling_rate": [8000, 8000]}),
        (pa.list_(pa.int16()), in_16_bits, {"sample_rate": ["8000", "8000"]}),
        (PATHS, {"array": None, "sampling_rate": 8000, "path": "a.flac"}, {}),
        (PATHS, {"array": SHORT, "sampling_rate": 8000, "path": "gone.flac"}, {}),
        (FILE, {"bytes": file, "path": "x"}, {}),
        (FILE, {"bytes": None, "path": "a.flac"}, {}),
        (pa.string(), "a.flac", {}),
        (pa.string(), (folder / "a.flac").as_uri(), {}),
        (pa.binary(), file, {}),
    ]
    for kind, value, columns in forms:
        source = sound(folder, kind, [value, None], **columns)
        good, null = source.items()
        assert null.error_class == "bad_line" and "row 1: " in str(null.error), null
        assert good.error is None and good.text == "Hi.", good
        opened = source.open(good.locator)
        if isinstance(opened, tuple):
            assert opened[1] == 8000 and opened[0].dtype == np.float32 and good.seconds == 1.0
            assert np.allclose(opened[0], SHORT, atol=1 / 32768)
        else:
            assert (opened if isinstance(opened, bytes) else Path(opened).read_bytes()) == file


@pytest.mark.parametrize(
    ("kind", "value", "columns", "says"),
    [
        (STRUCT, {"array": [0.1], "sampling_rate": None}, {}, "samples without a sampling_rate"),
        (STRUCT, {"array": [0.1], "sampling_rate": 0}, {}, "sampling_rate 0 is outside"),
        (STRUCT, {"array": [], "sampling_rate": 16_000}, {}, "`audio` holds no audio"),
        (STRUCT, {"array": None, "sampling_rate": 16_000}, {}, "`audio` holds no audio"),
        (pa.list_(pa.float32()), [0.1], {}, "samples without a sampling_rate"),
        (pa.list_(pa.float32()), [0.1], {"sampling_rate": ["fast"]}, "sampling_rate 'fast' is not a number"),
        (FILE, {"bytes": None, "path": None}, {}, "`audio` holds no audio"),
        (pa.list_(pa.int64()), [1], {}, r"column audio holds list<.*int64>; expected audio bytes, paths, or lists"),
        (pa.int64(), 1, {}, "column audio holds int64; expected"),
        (pa.list_(pa.list_(pa.float32())), [[0.1]], {}, "expected audio bytes, paths, or lists"),
    ],
)
def test_audio_that_is_none_is_one_message(folder: Path, kind: Any, value: Any, columns: Any, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        list(entries([sound(folder, kind, [value], **columns)]))


def test_data_sets_without_rows_or_columns(folder: Path) -> None:
    with pytest.raises(SourceError, match="a Parquet file has no rows; leave it out"):
        list(entries([sound(folder, pa.string(), [])]))
    source = sound(folder, pa.string(), ["a.flac"])
    with pytest.raises(SourceError, match=r"columns\.text is 'txet', but its columns are audio, text"):
        list(source.model_copy(update={"columns": {"text": "txet"}}).items())
    with pytest.raises(ValidationError, match="'sentence' is not a field"):
        parquet(folder / "d.parquet", columns={"sentence": "text"})


def test_words_that_pandas_takes_for_nothing(folder: Path) -> None:
    """Null is Luxembourgish for 0, and nan a word in Common Voice; a cell that is empty has no text."""
    pytest.importorskip("datasets")
    words = ["null", "nan", "NA", "None", ""]
    rows = [f"{number},a.flac,{word},{'' if number else 0.5}" for number, word in enumerate(words)]
    (folder / "d.csv").write_text("\n".join(["id,audio,sentence,offset", *rows]))
    source = HuggingFaceSource(kind="huggingface", corpus="hf", path="csv", data_files=str(folder / "d.csv"))
    items = list(source.items())
    assert [item.text for item in items] == [*words[:-1], None]
    assert [item.start_seconds for item in items] == [0.5, None, None, None, None]
    rows = [f"{number}\ta.flac\t{word}" for number, word in enumerate(words)]
    assert texts(manifest(folder, "\n".join(["id\taudio\ttext", *rows]), "m.tsv")) == [*words[:-1], None]


# -- in a job --------------------------------------------------------------------------------------------------------


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
