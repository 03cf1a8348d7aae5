"""WebDataset archives, as its own library, GNU tar and macOS write them, and damaged ones."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from echo_targets.transforms.sources.base import Item, SourceError
from echo_targets.transforms.sources.webdataset import WebDatasetSource
from tests.transforms.rows import rejects, run_stages

wds = pytest.importorskip("webdataset")
Speech = list[dict[str, Any]]
Files = Iterable[tuple[str, bytes]]


def source(tree: Path, **parameters: Any) -> WebDatasetSource:
    return WebDatasetSource(kind="webdataset", corpus="c", tree=str(tree), **parameters)


def listed(tree: Path, **parameters: Any) -> dict[str, Item]:
    return {item.id: item for item in source(tree, **parameters).items()}


def pack(path: Path, files: Files, **options: Any) -> None:
    """Write an archive by Python's own library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def flacs(speech: Speech) -> list[bytes]:
    return [row["audio"].read_bytes() for row in speech[:6]]


@pytest.fixture
def tree(tmp_path: Path, speech: Speech) -> Path:
    """Three shards by WebDataset's writer, of two samples each; keys repeat in every shard, as they often do."""
    folder = tmp_path / "shards"
    folder.mkdir()
    with wds.ShardWriter(f"{folder}/train-%06d.tar", maxcount=2, verbose=0) as writer:
        for number, row in enumerate(speech[:6]):
            meta = {"speaker": row["speaker"], "duration": row["duration"], "dnsmos": 3.2, "wav": "EN/a.wav"}
            texts = {"txt": row["text"]} if number % 2 else {}
            meta |= {} if texts else {"text": row["text"]}
            writer.write({"__key__": f"{number % 2:04}", "flac": row["audio"].read_bytes(), "json": meta, **texts})
    return folder


def test_samples_of_the_library_s_writer(tree: Path, tmp_path: Path, speech: Speech) -> None:
    given = {"kind": "webdataset", "corpus": "c", "tree": str(tree)}
    dataset, reports = run_stages(tmp_path / "root", {"ingest": {"sources": [given]}})
    rows = dataset.read("utterances").to_pylist()
    assert reports["ingest"].rejects == 0
    assert [row["utterance_id"] for row in rows] == [f"train-{n // 2:06}/{n % 2:04}" for n in range(6)]
    for row, said in zip(rows, speech, strict=False):
        assert (row["reference_text"], row["speaker_id"]) == (said["text"], said["speaker"])
        assert row["num_samples"] / 16_000 == pytest.approx(said["duration"], abs=0.001)
    assert rows[1]["audio"]["path"] == "0001.flac"
    made = source(tree)
    assert [item.locator for item in made.items()][1].startswith("train-000000.tar::")
    assert made.ignored == {"dnsmos": 6, "wav": 6}


@pytest.mark.parametrize(
    ("shards", "found"),
    [
        ("*.tar", [0, 1, 2]),
        ("train-{000001..000002}.tar", [1, 2]),
        ("train-_OP_000001..000002_CL_.tar", [1, 2]),
        (["train-000002.tar", "train-00000[02].tar"], [2, 0]),
        ("./train-000001.tar", [1]),
    ],
)
def test_names_of_shards(tree: Path, shards: Any, found: list[int]) -> None:
    assert [item.id[:12] for item in source(tree, shards=shards).items()] == [
        f"train-{number:06}" for number in found for _ in range(2)
    ]


@pytest.mark.parametrize(
    ("shards", "says"),
    [
        ("test-*.tar", r"has no file test-\*\.tar; correct the pattern"),
        ("train-{0..1.tar", "Unbalanced braces"),
        ("../x.tar", "leads out of"),
        ("/x.tar", "name it relative to"),
        ("https://host.invalid/x.tar", "name it relative to"),
        ("train-{000002..000003}.tar", "No such file"),
    ],
)
def test_shards_that_are_not_there(tree: Path, shards: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        list(source(tree, shards=shards).items())


@pytest.mark.parametrize("options", [{"format": form} for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)])
def test_archives_of_other_writers(tmp_path: Path, flacs: list[bytes], options: dict[str, Any]) -> None:
    """GNU tar of a folder: `./` before names, folders, files in any order; macOS adds `._` files. Long names."""
    long = f"{'deep/' * 30}caf\u00e9"
    files = [("./b.flac", flacs[0]), ("./a.txt", b"A."), ("./._a.flac", b"Mac OS X"), ("./b.txt", b"B.")]
    files += [("./a.flac", flacs[1]), (f"./{long}.flac", flacs[2]), ("__MACOSX/a.flac", b"x"), ("README", b"x")]
    pack(tmp_path / "x" / "t.v1.tar", files, **options)
    found = listed(tmp_path / "x")
    assert {key: (item.text, item.size) for key, item in found.items()} == {
        "t.v1/b": ("B.", len(flacs[0])),
        "t.v1/a": ("A.", len(flacs[1])),
        f"t.v1/{long}": (None, len(flacs[2])),
    }
    opened = source(tmp_path / "x").open(found[f"t.v1/{long}"].locator)
    assert opened == flacs[2]


def test_names_with_dots(tmp_path: Path, flacs: list[bytes]) -> None:
    """A key ends at the first dot of the base name, not of a folder (webdataset #157, datasets #7144)."""
    files = [("train.v1/1.flac", flacs[0]), ("22.05.flac", flacs[1])]
    files += [("spk.1.flac", flacs[2]), ("spk.2.flac", flacs[3]), ("spk.txt", b"Both.")]
    pack(tmp_path / "t.tar", files)
    found = listed(tmp_path)
    assert [found[f"t/{key}"].error for key in ("train.v1/1", "22")] == [None, None]
    assert "t.tar/spk has several audio files (`.1.flac`, `.2.flac`, `.txt`)" in str(found["t.tar/spk"].error)
    assert "`columns: {audio: ENDING}`" in str(found["t.tar/spk"].error)
    chosen = listed(tmp_path, columns={"audio": "2.flac"})
    assert chosen["t/spk"].size == len(flacs[3])
    assert "t.tar/22 has no file `.2.flac`, as `columns` wants, only `.05.flac`" in str(chosen["t.tar/22"].error)


def test_endings_that_are_no_audio_s(tmp_path: Path, flacs: list[bytes]) -> None:
    """`S_02_VE1.wav.data` and `S_02_VE1.wav.label` (webdataset #288)."""
    pack(tmp_path / "t.tar", [("a.wav.data", flacs[0]), ("a.wav.label", b"3"), ("a.said.utf8", b"Hi.")])
    (item,) = source(tmp_path).items()
    assert "has no audio file, only `.said.utf8`, `.wav.data`, `.wav.label`" in str(item.error)
    (item,) = source(tmp_path, columns={"audio": "wav.data", "text": "said.utf8"}).items()
    assert (item.text, item.size, item.error) == ("Hi.", len(flacs[0]), None)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([("a.txt", b"Alone."), ("a.jpg", b"x")], "has no audio file, only `.jpg`, `.txt`"),
        ([("a.flac", b"1"), ("a.FLAC", b"2")], "has two files `.flac`"),
        ([("a.flac", b"1"), ("a.txt", b"1"), ("a.txt", b"2")], "has two files `.txt`"),
        ([("a.flac.gz", b"1")], "has a compressed file `.flac.gz`: decompress it"),
        ([("a.flac", b"1"), ("a.json.gz", b"1")], "has a compressed file `.json.gz`"),
        ([("a.flac", b"1"), ("a.json", b"[1]")], "`.json` that is not a JSON object"),
        ([("a.flac", b"1"), ("a.json", b"{")], "`.json` that is not JSON"),
        ([("a.flac", b"1"), ("a.json", b'{"text": ["a", "b"]}')], "`text` is a list"),
        ([("a.flac", b"1"), ("a.json", b'{"text": "One."}'), ("a.txt", b"Two.")], "remove one"),
        ([("a.flac", b"1"), ("a.json", b'{"txt": "One."}'), ("a.txt", b"Two.")], "a different `txt` in its JSON"),
        ([("a.flac", b"1"), ("a.json", b'{"start_ms": 7}')], "`start_ms` is not supported"),
        ([("a.flac", b"1"), ("a.txt", b"caf\xe9")], "`.txt` that is not UTF-8"),
        ([("a.flac", b"1"), ("a.txt", b"a" * (1 << 20) + b"b")], "`.txt` that is longer than"),
        ([("a\n.flac", b"1")], "control characters"),
    ],
)
def test_bad_samples_are_rejects(tmp_path: Path, flacs: list[bytes], files: Files, says: str) -> None:
    pack(tmp_path / "t.tar", [*files, ("good.flac", flacs[0])])
    bad, good = source(tmp_path).items()
    assert good.id == "t/good" and good.error is None
    assert bad.error_class == "bad_line" and says in str(bad.error) and str(bad.error).startswith("t.tar/a")


def test_a_link_has_no_audio(tmp_path: Path, flacs: list[bytes]) -> None:
    pack(tmp_path / "t.tar", [("good.flac", flacs[0])])
    with tarfile.open(tmp_path / "t.tar", "a") as archive:
        for name, kind in (("hard.flac", tarfile.LNKTYPE), ("soft.flac", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    errors = [item.error for item in source(tmp_path).items()]
    assert errors[0] is None and all("is a link" in str(error) for error in errors[1:]) and len(errors) == 3


def damaged(kind: str, whole: bytes, last: int) -> bytes:
    """Damage an archive whose last file starts at a position."""
    header = whole[last - 512 : last]
    return {
        "truncated inside a file": whole[: last + 1000],
        "truncated inside a header": whole[: last - 200],
        "truncated between files": whole[: last - 512],
        "no end mark": whole.rstrip(b"\0").ljust(-(-len(whole.rstrip(b"\0")) // 512) * 512, b"\0"),
        "a broken header": whole.replace(header, header[:100] + b"x" * 50 + header[150:]),
        "two archives joined": whole + whole,
    }[kind]


@pytest.mark.parametrize(
    ("kind", "items", "says"),
    [
        (
            "truncated inside a file",
            5,
            "t.tar is truncated inside of 'e.flac'; copy it again; it has 5 items before that",
        ),
        ("truncated inside a header", 5, "t.tar "),
        ("truncated between files", 5, "t.tar has no end mark"),
        ("no end mark", 6, "t.tar has no end mark"),
        ("a broken header", 5, "its header is damaged"),
        ("two archives joined", 6, "another archive follows"),
    ],
)
def test_damaged_archives(tmp_path: Path, flacs: list[bytes], kind: str, items: int, says: str) -> None:
    """What comes before the damage is kept, except the last item, whose text may be lost; a reject says so."""
    pack(tmp_path / "t.tar", [(f"{name}.flac", data) for name, data in zip("xyzuve", flacs, strict=True)])
    last = list(source(tmp_path).items())[-1]
    assert last.id == "t/e"
    position = int(last.locator.split("::")[1].split("+")[0])
    (tmp_path / "t.tar").write_bytes(damaged(kind, (tmp_path / "t.tar").read_bytes(), position))
    *good, edge, fault = source(tmp_path).items()
    assert len(good) == items - 1 and not any(item.error for item in good)
    assert "is the last before the archive breaks off" in str(edge.error)
    assert fault.error_class == "bad_archive" and says in str(fault.error)
    assert all(source(tmp_path).open(item.locator) == flacs[number] for number, item in enumerate(good))


@pytest.mark.parametrize("size", [-512, -1_000_000, 2**62, 8**11])
def test_a_forged_size_ends(tmp_path: Path, flacs: list[bytes], size: int) -> None:
    """A negative one would send Python's `tarfile` back, again and again (CVE-2025-8194)."""
    pack(tmp_path / "t.tar", [("a.flac", flacs[0]), ("b.flac", flacs[1]), ("c.flac", flacs[2])])
    second = list(source(tmp_path).items())[1].locator
    at = int(second.split("::")[1].split("+")[0]) - 512
    data = bytearray((tmp_path / "t.tar").read_bytes())
    header = tarfile.TarInfo.frombuf(bytes(data[at : at + 512]), "utf-8", "strict")
    header.size = size
    data[at : at + 512] = header.create_gnu_header(header.get_info(), "utf-8", "strict")[-512:]  # type: ignore[attr-defined]
    (tmp_path / "t.tar").write_bytes(bytes(data))
    edge, fault = source(tmp_path).items()
    assert (edge.where, edge.error_class, fault.error_class) == ("t.tar/a", "bad_line", "bad_archive")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            gzip.compress(b"\0" * 10_240, mtime=0),
            "is compressed with gzip, so its files can't be opened one by one; decompress",
        ),
        (b"", "is not a readable tar archive (empty file)"),
        (b"<html>404</html>" * 99, "is not a readable tar archive"),
    ],
)
def test_files_that_are_no_archives(tree: Path, data: bytes, says: str) -> None:
    (tree / "train-000001.tar").write_bytes(data)
    items = list(source(tree).items())
    assert [item.error_class for item in items] == [None, None, "bad_archive", None, None]
    assert says in str(items[2].error)


@pytest.mark.parametrize("blocks", [1, 18])
def test_archives_joined_without_padding(tmp_path: Path, flacs: list[bytes], blocks: int) -> None:
    """Two blocks of zeros end an archive; the padding to twenty may be missing."""
    pack(tmp_path / "t.tar", [("a.flac", flacs[0]), ("b.flac", flacs[1])])
    data = (tmp_path / "t.tar").read_bytes()
    end = -(-len(data.rstrip(b"\0")) // 512) * 512
    (tmp_path / "t.tar").write_bytes(data[:end] + bytes(512 * blocks) + data)
    *_, fault = source(tmp_path).items()
    assert f"can't be read from byte {end + 512 * blocks} on: another archive follows" in str(fault.error)


def test_an_archive_that_becomes_shorter_after_it_was_listed(tree: Path, tmp_path: Path) -> None:
    from echo_targets.pipeline.job import Job
    from echo_targets.pipeline.plan import plan
    from echo_targets.pipeline.stage import StageSpec
    from echo_targets.schemas.dataset.layout import Dataset
    from echo_targets.transforms.sources.registry import entries
    from tests.pipeline.stand_ins import Inline

    made = source(tree)
    spec = StageSpec("echo_targets.transforms.stages.ingest:Ingest", {"sources": [made.model_dump(mode="json")]})
    job = Job(str(tmp_path / "root"), plan(entries([made]), 1.0), [spec], 1.0)
    whole = (tree / "train-000002.tar").read_bytes()
    (tree / "train-000002.tar").write_bytes(whole[:9000])
    list(job.run(Inline()))
    found = rejects(Dataset(str(tmp_path / "root")), "utterances")
    assert {row["error_class"] for row in found.values()} == {"truncated"} and len(found) == 2


def test_a_text_in_a_file_and_in_the_json(tmp_path: Path, flacs: list[bytes]) -> None:
    meta = json.dumps({"txt": "One.", "sentence": "One."}).encode()
    pack(tmp_path / "t.tar", [("a.flac", flacs[0]), ("a.json", meta), ("a.txt", b"One.\n")])
    (item,) = source(tmp_path).items()
    assert (item.text, item.error) == ("One.", None)


def test_ids_of_the_json_and_sections(tmp_path: Path, flacs: list[bytes]) -> None:
    meta = {"id": "EN_B00000_S00000_W000007", "start": 0.5, "end": 1.75, "language": "en"}
    pack(tmp_path / "t.tar", [("a.flac", flacs[0]), ("a.json", json.dumps(meta).encode())])
    (item,) = source(tmp_path).items()
    assert (item.id, item.start_seconds, item.section_seconds, item.seconds) == (meta["id"], 0.5, 1.25, 1.25)
