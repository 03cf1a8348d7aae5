"""Lines of text files: JSON lines, tab-separated values, and the transcripts of corpora.

Only a line feed ends a line, with or without a carriage return before it: texts may hold other separators.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from echo_targets.schemas.tables.base import BLANK
from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.sources.values import BadLine

MAX_LINE = 1 << 20
"""Maximum length of a line, in bytes."""
MAX_CELL_LINES = 1000
"""Maximum number of lines in a quoted cell. A longer one is due to an unpaired quotation mark."""

Line = tuple[int, str | BadLine]
Record = tuple[int, dict[str, Any] | BadLine]

FORMATS = {
    b"PAR1": "a Parquet file; use it with kind: huggingface, path: parquet, data_files: FILE",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; unpack it, or save it as tab-separated text (.tsv)",
}


def text_lines(file: BinaryIO, name: str, max_line: int = MAX_LINE) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file that are not blank, numbered from 1, without line ends; bad ones as BadLine.

    Raises:
        SourceError: the file has another format, or is UTF-16.
    """
    start = file.read(MAX_LINE)
    file.seek(0)
    _check_kind(start, name)
    old_mac = b"\r" in start and b"\n" not in start
    for number, line in enumerate(file.read().split(b"\r") if old_mac else _raw_lines(file, max_line), 1):
        if line is None:
            yield number, BadLine(f"is longer than {max_line} bytes")
            continue
        try:
            text = line.decode().removeprefix("\ufeff")  # the mark is in mid-file where files were joined
        except UnicodeDecodeError as error:
            yield number, BadLine(not_utf8(error))
            continue
        if text.strip(BLANK):
            yield number, text.removesuffix("\n").removesuffix("\r")


def json_lines(file: BinaryIO, name: str, max_line: int = MAX_LINE) -> Iterator[Record]:
    """Yield the objects of a JSON Lines file.

    Raises:
        SourceError: as for `text_lines`; or the file is a single JSON array.
    """
    for place, (number, line) in enumerate(text_lines(file, name, max_line)):
        if place == 0 and isinstance(line, str) and line.lstrip().startswith("["):
            raise SourceError(
                f"{name}: is a single JSON array; expected JSON lines, one object per line. Convert it: "
                "jq -c '.[]' IN.json > OUT.jsonl"
            )
        yield number, json_object(line) if isinstance(line, str) else line


def tsv_records(file: BinaryIO, name: str) -> Iterator[Record]:
    """Yield the rows of a file of tab-separated values with a header line, as in Common Voice.

    A quotation mark is an ordinary character and may be unpaired. Quoting is undone only if a spreadsheet or pandas
    must have added it: around every column's name, or around a cell that has line breaks or whose inner quotes are all
    doubled.

    Raises:
        SourceError: as for `text_lines`; or the header is missing, or repeats or lacks a name.
    """
    lines = text_lines(file, name)
    number, line = next(lines, (1, BadLine("is empty, expected a header line")))
    if isinstance(line, BadLine):
        raise SourceError(f"manifest {name}: line {number} {line}")
    cells = line.split("\t")
    quoted = all(_is_quoted(cell) for cell in cells)
    header = [_unquoted(cell, quoted).strip(BLANK) for cell in cells]
    for place, column in enumerate(header):
        if column in header[:place]:
            raise SourceError(f"manifest {name}: two columns of the header are named {column!r}; rename one")
        if not column and place:  # pandas writes its index as a first column without a name
            raise SourceError(f"manifest {name}: column {place + 1} of the header has no name; give it one")
    for number, row in _rows(lines, len(header)):
        if isinstance(row, BadLine):
            yield number, row
        elif len(row) == len(header):
            yield number, {key: _unquoted(cell, quoted) for key, cell in zip(header, row, strict=True)}
        else:
            yield number, BadLine(f"has {len(row)} columns, but the header has {len(header)}")


def decoded(data: bytes) -> str:
    """Return the text of a whole file, without its byte order mark.

    Raises:
        BadLine: it is not UTF-8.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadLine("is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadLine(not_utf8(error)) from None


def not_utf8(error: UnicodeDecodeError) -> str:
    """Describe bytes that are not UTF-8, and how to convert them."""
    return (
        f"is not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}); convert the file, for instance with "
        "iconv -f LATIN1 -t UTF-8 IN > OUT"
    )


def _rows(lines: Iterator[Line], width: int) -> Iterator[tuple[int, list[str] | BadLine]]:
    """Yield the cells of each row, which may span several lines.

    If a line's last cell opens with a quotation mark and does not close it, the row continues in the following lines
    that are not complete rows. If this does not give a row of `width` columns, all of these lines together are one bad
    line, because the first could look like a row with half of its text.
    """
    following = next(lines, None)
    while following is not None:
        (first, line), following = following, next(lines, None)
        if isinstance(line, BadLine):
            yield first, line
            continue
        cells, last, is_whole = line.split("\t"), first, True
        while (
            _is_open(cells[-1])
            and following is not None
            and not _is_row(following[1], width)
            and last - first < MAX_CELL_LINES
            and len(cells[-1]) < MAX_LINE
        ):
            (number, line), following = following, next(lines, None)
            if isinstance(line, BadLine):
                is_whole = False
            else:
                rest, *more = line.split("\t")
                cells[-1] += "\n" * (number - last) + rest  # `lines` omits blank lines but counts them
                cells += more
            last = number
        broken = [cell for cell in cells if "\n" in cell]
        if last == first or (is_whole and len(cells) == width and all(map(_is_quoted, broken))):
            yield first, cells
        else:
            yield (
                first,
                BadLine(
                    f"has a cell that opens with a quotation mark, but lines {first} to {last} do not form a row of "
                    f"{width} columns: remove the mark, or the line breaks and tabs inside the cell"
                ),
            )


def _is_row(line: str | BadLine, width: int) -> bool:
    return isinstance(line, str) and line.count("\t") == width - 1


def _raw_lines(file: BinaryIO, max_line: int) -> Iterator[bytes | None]:
    """Yield lines with their ends; None for a line that is too long."""
    while line := file.readline(max_line + 1):
        if len(line) <= max_line or line.endswith(b"\n"):
            yield line
            continue
        while (rest := file.readline(max_line)) and not rest.endswith(b"\n"):
            pass
        yield None


def _check_kind(start: bytes, name: str) -> None:
    for magic, kind in FORMATS.items():
        if start.startswith(magic):
            raise SourceError(f"{name}: is {kind}")
    zeros = {place % 2 for place, byte in enumerate(start[:64]) if not byte}
    marked = (start[:2], zeros) in ((b"\xff\xfe", {1}), (b"\xfe\xff", {0}))
    if marked or (len(zeros) == 1 and start[:64].count(0) >= len(start[:64]) // 2):
        raise SourceError(f"{name}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT")


def json_object(line: str) -> dict[str, Any] | BadLine:
    """Return a JSON object without repeated keys, or why the text is none."""
    try:
        record = json.loads(line, object_pairs_hook=_object)
        json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is not text
    except BadLine as error:
        return error
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        return BadLine(f"is not JSON ({error})")
    return record if isinstance(record, dict) else BadLine("is not a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record and record[key] != value:
            raise BadLine(f"has `{key}` twice, with different values")
        record[key] = value
    return record


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _is_open(cell: str) -> bool:
    """Return True if a cell opens with a quotation mark that it does not close."""
    return cell.startswith('"') and cell.count('"') % 2 == 1


def _unquoted(cell: str, quoted: bool) -> str:
    if not _is_quoted(cell):
        return cell
    inner = cell[1:-1]
    made = quoted or not inner or "\n" in inner or ('""' in inner and '"' not in inner.replace('""', ""))
    return inner.replace('""', '"') if made else cell
