"""Files of lines: line ends, quotes, encodings, headers, bad lines, and the paths of audio that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from echo_targets.pipeline.plan import plan
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.sources.huggingface import HuggingFaceSource
from echo_targets.transforms.sources.registry import entries
from tests.transforms.sources.small_sources import first, manifest, texts

LINE = '{"id": "%s", "audio": "a.flac", "text": "%s"}'


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


def test_a_folder_is_no_manifest(folder: Path) -> None:
    made = manifest(folder, "")
    for place in (str(folder), f"{folder}/"):
        with pytest.raises(SourceError, match=r"is not a file; for a folder of audio, use kind: folder"):
            list(made.model_copy(update={"manifest": place}).items())


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
