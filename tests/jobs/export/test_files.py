"""Files of an export: whole or not there, and errors that are not lost in a thread."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from echo_targets.jobs.export.files import FileWriter, Tar, join, json_line, writing
from echo_targets.schemas.dataset.storage import Folder, open_storage


@pytest.mark.parametrize("count", [1, 40])
def test_a_file_that_cannot_be_written_is_an_error(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(self: Folder, path: str, data: bytes) -> None:
        written.append(path)
        if path == "0":
            raise OSError("no space left")

    monkeypatch.setattr(Folder, "write", write)
    with pytest.raises(OSError, match="no space left"), FileWriter(open_storage(str(tmp_path))) as files:
        for number in range(count):
            files.put(str(number), b"")
    assert len(written) < 40, "it stops soon"


def test_files_are_there_at_the_end_of_the_block(tmp_path: Path) -> None:
    with FileWriter(open_storage(str(tmp_path))) as files:
        for number in range(50):
            files.put(f"a/{number}", b"%d" % number)
    assert {int(path.name): int(path.read_bytes()) for path in (tmp_path / "a").iterdir()} == {n: n for n in range(50)}


def test_a_large_file_is_whole_or_not_there(tmp_path: Path) -> None:
    out = open_storage(str(tmp_path))
    with pytest.raises(ZeroDivisionError), writing(out, "a/b") as sink:
        sink.write(b"half")
        raise ZeroDivisionError
    assert list((tmp_path / "a").iterdir()) == []


def test_an_archive_holds_files_of_any_size() -> None:
    sizes = {f"{size}.bin": bytes([size % 251]) * size for size in (0, 1, 511, 512, 513, 10_240, 100_001)}
    sizes["x" * 100] = b"a name of 100 characters"
    sink = io.BytesIO()
    tar = Tar(sink)
    for name, data in sizes.items():
        tar.add(name, data)
    tar.close()
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue()), mode="r:") as archive:
        read = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert read == sizes


def test_lines_are_joined_in_order_without_gaps(tmp_path: Path) -> None:
    out = open_storage(str(tmp_path))
    rows = [{"n": n, "text": "a\u2028b\r\n\x85é"} for n in range(5)]
    for name, some in (("a", rows[:2]), ("b", []), ("c", rows[2:])):
        out.write(name, b"".join(map(json_line, some)))
    join(out, "lines", ["a", "b", "c"])
    join(out, "list", ["b", "a", "c"], between=b",", ends=(b"[\n", b"]\n"))
    join(out, "empty", ["b"], between=b",", ends=(b"[\n", b"]\n"))
    assert [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()] == rows
    assert json.loads((tmp_path / "list").read_text()) == rows and json.loads((tmp_path / "empty").read_text()) == []
