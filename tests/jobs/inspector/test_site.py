"""What the page of a dataset is made of: its data against the tables, and that nothing in it can be more than text."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echo_targets.jobs.commands.inspect import server
from echo_targets.jobs.inspector.rows import diff, word_diff
from echo_targets.jobs.inspector.site import Site, write_site
from echo_targets.jobs.inspector.sound import FLOOR, HOP, STEP, MeanSpectra, centers, peaks, spectrogram
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.models.vocoders.hifigan import UnitHifigan
from tests.jobs.inspector.inspect_root import ILL_ID, ILL_TEXT, ROWS, current_first, name, write_root
from tests.jobs.test_cli import REPOSITORY, command, run
from tests.schemas.samples import Root, num_samples
from tests.transforms.speechbrain_checkpoints import make_vocoder, unit_hifigan


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return write_root(tmp_path_factory.mktemp("inspect") / "root")


@pytest.fixture(scope="module")
def site(root: Root) -> Site:
    return write_site(str(root.folder), root.folder.parent / "page", ROWS)[0]


def value(folder: Path, put: str) -> Any:
    """What a data file hands to the page."""
    text = (folder / "data" / f"{put}.js").read_text()
    found = re.fullmatch(rf'site\.put\("{put}",(.*)\)\n', text)
    assert found, text[:100]
    return json.loads(found[1])


def details(folder: Path) -> list[dict[str, Any]]:
    return [row for page in range(2) for row in value(folder, f"details/{page:06d}")]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_row_is_there_with_what_the_tables_say(root: Root, site: Site) -> None:
    chunk, index, rows = value(site.folder, "rows/0000"), value(site.folder, "index"), details(site.folder)
    assert [row["id"] for row in rows] == chunk["ids"] == [name(number) for number in range(ROWS)]
    assert (index["total"], index["sounding"]) == (ROWS, ROWS)
    assert [version["fingerprint"] for version in index["versions"]] == current_first(root)
    assert chunk["roles"] == "01" * (ROWS // 2)
    columns = {
        score["name"]: np.frombuffer(base64.b64decode(column), "<f4")
        for score, column in zip(index["scores"], chunk["scores"], strict=True)
    }
    transcripts = root.dataset.read("transcripts").to_pylist()
    assert columns["wer_vs_reference"].tolist() == [row["wer_vs_reference"] for row in transcripts]
    assert np.isnan(columns["unit_error_rate"][1::2]).all()
    assert columns["unit_error_rate"][::2] == pytest.approx(np.arange(0, ROWS, 2) / 100)
    for number, units in enumerate(root.dataset.read("units").to_pylist()):
        told = rows[number]
        assert ([told["units"], *told["others"]], told["durations"]) == (units["units"], units["durations"])
        assert told["hop"] * units["num_frames"] == pytest.approx(rows[number]["seconds"], abs=told["hop"])
        assert rows[number]["seconds"] == round(num_samples(number) / 16_000, 4)
    assert [rows[number]["system"] for number in (4, 5, 6)] == [*["You are a concise travel agent."] * 2, None]
    assert rows[4]["words"] == [
        ["hello", 0.006, 0.438, False],
        ["you", 0.438, round(num_samples(4) / 16_000, 3), False],
    ]
    assert "words" not in rows[5]  # it has no alignment


def test_a_question_knows_its_reply_and_its_targets(site: Site) -> None:
    rows = details(site.folder)
    assert rows[8]["other"] == {"number": 9, "id": name(9), "is_reply": True}
    assert rows[9]["other"] == {"number": 8, "id": name(8), "is_reply": False}
    new, old = rows[8]["targets"]
    assert [segment["text"] for segment in new["segments"]] == ["hello", " there you"]
    assert [segment["edits"] for segment in new["segments"]] == [[["s", 1, 1], ["=", 5, 5]], [["=", 3, 3], ["d", 3, 0]]]
    assert [segment["edits"] for segment in old["segments"]] == [[["=", 6, 6]], [["=", 3, 3], ["d", 4, 0]]]
    assert new["apart"] is None and old["apart"] == pytest.approx(2 / 13, abs=1e-4)
    assert new["borders"] is None  # `there` has no time, so neither has the border before it
    assert "targets" not in rows[9]


def test_borders_lie_where_the_recorded_units_were_cut(site: Site) -> None:
    """In the middle of the pause between the last word of a segment and the first of the next."""
    assert [target["borders"] for target in details(site.folder)[10]["targets"]] == [[0.45], [0.45]]


def test_texts_are_compared_word_by_word() -> None:
    assert word_diff("Well, hello there my friend!", "hello where my friend you") == [
        ("x", "Well,", ""),
        ("=", "hello", "hello"),
        ("x", "there", "where"),
        ("=", "my friend!", "my friend"),
        ("x", "", "you"),
    ]
    assert word_diff("thirty six cats", "36 cats") == [("x", "thirty six", "36"), ("=", "cats", "cats")]
    assert word_diff("It's FINE.", "it's fine") == [("=", "It's FINE.", "it's fine")]
    assert word_diff('He said, "hello there."', "he said yellow there") == [
        ("=", "He said,", "he said"),
        ("x", '"hello', "yellow"),
        ("=", 'there."', "there"),
    ]
    assert word_diff("今天天气很好。", "今天天汽，很好") == [
        ("=", "今天天", "今天天"),
        ("x", "气", "汽，"),
        ("=", "很好。", "很好"),
    ]
    assert word_diff("यह एक कि", "यह एक की") == [("=", "यह एक", "यह एक"), ("x", "कि", "की")]
    assert word_diff("...", "word") == [("x", "", "word")]
    assert diff([], []) == [] and diff([1, 2, 3], [1, 3]) == [("=", 1, 1), ("d", 1, 0), ("=", 1, 1)]


def test_what_a_data_set_says_is_never_html_nor_a_path(root: Root, site: Site) -> None:
    data = r"data/(index|spectra|rows/\d{4}|(details|sounds|recordings)/\d{6})\.js"
    known = rf"index\.html|served\.js|static/[\w.]+|{data}"
    assert [path for path in files(site.folder) if not re.fullmatch(known, path)] == []
    assert sorted(path.name for path in root.folder.parent.iterdir()) == ["page", "root"]
    shell = (site.folder / "index.html").read_text()
    assert re.findall(r"<script[^>]*>", shell) == re.findall(r'<script src="(?:static/[\w.]+|served\.js)">', shell)
    assert "&lt;script&gt;window.ill" in shell and "and 2 more" in shell
    for path in (site.folder / "data").rglob("*.js"):
        assert "<" not in path.read_text(), path
    rows = details(site.folder)
    assert rows[2]["id"].endswith(ILL_ID) and rows[2]["reference"] == ILL_TEXT


def test_a_sample_of_dialogues_has_sound(root: Root, tmp_path: Path) -> None:
    heard = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        _, count = write_site(str(root.folder), folder, 20)
        chunk = value(folder, "rows/0000")
        written = [int(path.stem) for path in sorted((folder / "data" / "sounds").iterdir())]
        assert written == [place for place, has in enumerate(chunk["sounds"]) if has == "1"]
        assert count == len(written) and 0 < count < ROWS
        assert all((number ^ 1) in written for number in written)  # question and reply together
        heard.append(written)
    assert heard[0] == heard[1]
    assert write_site(str(root.folder), tmp_path / "a", 0)[1] == 0
    assert not (tmp_path / "a" / "data" / "sounds").exists()


def test_sound_is_the_tables_own(root: Root, site: Site) -> None:
    flac = [row["bytes"] for row in root.dataset.read("utterances")["audio"].to_pylist()]
    assert [base64.b64decode(value(site.folder, f"sounds/{number:06d}")["flac"]) for number in range(ROWS)] == flac
    wanted = [0, 39, 40, 69]
    assert list(site.source.audio(wanted)) == [(number, flac[number]) for number in wanted]


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("speechbrain")
    return make_vocoder(tmp_path_factory.mktemp("vocoder"), 101)


def test_a_vocoder_says_the_targets_of_rows_with_sound(root: Root, vocoder: Path, tmp_path: Path) -> None:
    site, _ = write_site(str(root.folder), tmp_path / "page", 8, UnitHifigan(vocoder))
    rows, sounds = details(site.folder), value(site.folder, "rows/0000")["sounds"]
    said = [number for number in range(ROWS) if sounds[number] == "1" and "targets" in rows[number]]
    folder = site.folder / "data" / "voices"
    assert value(site.folder, "index")["voice"] and 0 < len(said) < ROWS // 2
    assert [int(path.stem) for path in sorted(folder.iterdir())] == said
    library = unit_hifigan(vocoder)
    for place, flac in enumerate(value(site.folder, f"voices/{said[0]:06d}")):
        units = [unit for segment in rows[said[0]]["targets"][place]["segments"] for unit in segment["units"][0]]
        kept = [unit for unit, before in zip(units, [None, *units], strict=False) if unit != before]
        expected = library.decode_unit(torch.tensor(kept)[:, None])[0].numpy()
        np.testing.assert_allclose(decode_flac(base64.b64decode(flac)), expected, atol=1e-4)
    written = (folder / f"{said[0]:06d}.js").read_text()
    site.put_any_voice(said[0])
    assert (folder / f"{said[0]:06d}.js").read_text() == written
    site.put_any_voice(1)
    assert not (folder / "000001.js").exists()  # a reply has no targets
    small = UnitHifigan(make_vocoder(tmp_path / "small", 31))
    with pytest.raises(UserError, match=r"not of the vocoder's codebook \(units .* \[0, 30\)"):
        write_site(str(root.folder), tmp_path / "page", ROWS, small)


def test_a_server_says_any_rows_targets(root: Root, vocoder: Path, tmp_path: Path) -> None:
    site, _ = write_site(str(root.folder), tmp_path / "page", 0, UnitHifigan(vocoder))
    assert not (site.folder / "data" / "voices").exists()
    with server(site) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        connection = HTTPConnection(*serving.server_address[:2], timeout=30)
        for path, status in (("000068", 200), ("000069", 404), ("000070", 404)):
            connection.request("GET", f"/data/voices/{path}.js")
            answer = connection.getresponse()
            assert (answer.status, answer.read() and None) == (status, None), path
        serving.shutdown()
    assert len(value(site.folder, "voices/000068")) == 2


def test_peaks_and_spectrogram() -> None:
    waveform = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    bands = spectrogram(waveform, HOP)
    assert bands.shape == (50, 64) and spectrogram(waveform[:16_001], HOP).shape == (50, 64)
    click = np.zeros(16_000, np.float32)
    click[8_000] = 1
    for hop, frames in ((HOP, 50), (Fraction(640, 3), 75), (Fraction(1280), 13)):
        heard = spectrogram(click, hop)
        assert heard.shape == (frames, 64) and (hop > 1024 or heard.sum(axis=1).argmax() == (8_000 - 1) // hop)
    middle = bands[25]
    assert middle.argmax() == np.abs(centers() - 1000).argmin()
    assert -12 < FLOOR + STEP * middle.max() <= 0  # a full-scale sine, spread over a band
    assert peaks(waveform * 0.5).tolist() == [127] * 100
    heard = MeanSpectra()
    units = {"codebook_id": "k", "codebook_size": 3, "units": [[2, 0]], "durations": [30, 20]}
    heard.add(units, np.repeat(np.array([[10], [40]], np.uint8), [30, 20], axis=0).repeat(64, axis=1))
    means = np.frombuffer(base64.b64decode(heard.value()["bands"]), np.uint8).reshape(3, 64)
    assert means[:, 0].tolist() == [40, 0, 10] and heard.value()["frames"] == [20, 0, 30]


def test_nothing_else_is_written_over(root: Root, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own")
    for folder in (tmp_path / "mine", tmp_path / "mine" / "index.html", root.folder, root.folder / "units" / "page"):
        before = files(root.folder)
        with pytest.raises(UserError, match="--out"):
            write_site(str(root.folder), folder, 0)
        assert files(root.folder) == before and (tmp_path / "mine" / "index.html").read_text() == "my own"


def test_the_command(root: Root, tmp_path: Path) -> None:
    result = run("inspect", str(root.folder), "--out", str(tmp_path / "page"), "--sounds", "0")
    assert result.returncode == 0, result.stderr
    assert "70 rows, 0 with sound" in result.stdout
    for bad in ((str(tmp_path),), (str(root.folder), "--out", str(root.folder))):
        result = run("inspect", *bad)
        assert result.returncode == 2 and "Traceback" not in result.stderr and result.stderr.strip()


def test_ctrl_c_ends_the_server(root: Root, tmp_path: Path) -> None:
    arguments = command("inspect", str(root.folder), "--out", str(tmp_path / "page"), "--sounds", "0", "--serve")
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout
        said = [serving.stdout.readline() for _ in range(2)]
        assert "http://127.0.0.1:" in said[1], said
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=60) == 130


@pytest.fixture
def address(root: Root, tmp_path: Path) -> Iterator[tuple[str, int]]:
    quiet, _ = write_site(str(root.folder), tmp_path / "quiet", 0)
    (tmp_path / "secret.txt").write_text("secret")
    with server(quiet) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving.server_address[0], serving.server_port
        serving.shutdown()


def test_the_server_gives_its_folder_alone_and_any_sound(site: Site, address: tuple[str, int]) -> None:
    def get(path: str, **headers: str) -> tuple[int, bytes]:
        connection = HTTPConnection(*address, timeout=30)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    assert address[0] == "127.0.0.1"
    assert get("/")[0] == 200 and get("/served.js") == (200, b"site.served = true\n")
    for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/data/../../secret.txt", "/data/sounds/000070.js"):
        assert get(path)[0] == 404, path
    assert get("/", Host="example.org")[0] == 403
    written = (site.folder / "data" / "sounds" / "000043.js").read_bytes()
    assert get("/data/sounds/000043.js") == get("/data/sounds/000043.js") == (200, written)


def test_a_target_that_the_vocoder_does_not_know_is_left_out(root: Root, vocoder: Path, tmp_path: Path) -> None:
    """Versions may have different codebooks: those of the vocoder are voiced. If none is, that is an error."""
    site = Site(tmp_path, write_site(str(root.folder), tmp_path / "page", 0)[0].source, UnitHifigan(vocoder))
    known, other = (
        {"codebook": "k", "segments": [{"units": [units], "durations": None}]} for units in ([1, 2], [1, 101])
    )
    site.put_voice(7, {"id": "row", "targets": [known, other, {"version": 1, "segments": []}]})
    first, *others = value(tmp_path, "voices/000007")
    assert first and others == [None, None]
    with pytest.raises(UserError, match="row: the targets' units are not of the vocoder's codebook"):
        site.put_voice(7, {"id": "row", "targets": [other]})
