"""Whole jobs with their input and output in a bucket, over a network that fails: the bytes of a local run."""

from __future__ import annotations

import json
import logging
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.jobs.commands.check import check_command
from echo_targets.jobs.commands.status import status_command
from echo_targets.jobs.stages import STAGES
from echo_targets.jobs.versions.card import write_card
from echo_targets.pipeline.job import Job, JobFailed
from echo_targets.pipeline.plan import plan
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.sources.dialogues import DialoguesSource
from echo_targets.transforms.sources.librispeech import LibriSpeechSource
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.mls import MlsSource
from echo_targets.transforms.sources.registry import AnySource, entries
from echo_targets.transforms.stages.ingest import IngestParameters
from tests.pipeline.stand_ins import Double, Inline, files, job, stage
from tests.storage.conftest import every
from tests.storage.object_store import Fault, Network, Store
from tests.transforms.rows import rejects, run_stages

ROWS, SHARDS = 6, 2


def run(root: str) -> None:
    spec = stage(Double, refuses=["utt-0003"])
    for _ in job(root, spec, rows=ROWS, shards=SHARDS, allowed=0.5).run(Inline()):  # type: ignore[arg-type]
        pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run in a folder leaves."""
    root = tmp_path_factory.mktemp("whole") / "root"
    run(str(root))
    return files(root)


class Witness:
    """Keeps every version of every object that was ever to be seen."""

    def __init__(self, network: Network, server: Store, bucket: str) -> None:
        self.seen: dict[str, set[bytes]] = {}
        self._server, self._bucket = server, bucket
        network.after = self._look

    def _look(self, method: str, path: str) -> None:
        key = urllib.parse.unquote(path.partition("?")[0]).removeprefix(f"/{self._bucket}/")
        if method == "PUT" and key in self._server.keys(self._bucket):
            self.seen.setdefault(key, set()).add(self._server.get(self._bucket, key))


JOB_FAULTS: list[tuple[Fault, str, int]] = [
    ("500", "PUT", 5),
    ("503", "GET", 9),
    ("slow", "GET", 12),
    ("stalled", "GET", 40),
    ("get cut", "GET", 12),
    ("put cut", "PUT", 5),
    ("answer lost", "PUT", 5),
]


@pytest.mark.parametrize(("fault", "method", "count"), JOB_FAULTS, ids=str)
def test_a_job_outlasts_faults_and_leaves_the_same_bytes(
    network: Network, server: Store, bucket: str, whole: dict[str, bytes], fault: Fault, method: str, count: int
) -> None:
    witness = Witness(network, server, bucket)
    network.choose = every(count, method, fault)
    run(f"s3://{bucket}/root")
    assert network.faults().count(fault) >= 1
    assert server.files(bucket, "root") == whole
    finished = {f"root/{path}": {data} for path, data in whole.items() if "/part-" in path or path.endswith(".parquet")}
    assert {key: seen for key, seen in witness.seen.items() if key in finished} == finished, "never a part of one"


def test_a_job_outlasts_a_network_that_goes_away(
    network: Network, server: Store, bucket: str, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echo_targets.schemas.dataset.object_store.FIRST_PAUSE", 0.2)
    port, again = network.port, list[Network]()

    def choose(number: int, method: str, path: str) -> None:
        if number == 40:
            threading.Thread(target=leave).start()

    def leave() -> None:
        network.close()
        threading.Timer(0.5, lambda: again.append(Network(server.port, port))).start()

    network.choose = choose
    run(f"s3://{bucket}/root")
    assert server.files(bucket, "root") == whole
    again[0].close()


def failing_from(first: int) -> Callable[[int, str, str], Fault | None]:
    return lambda number, method, path: "500" if number >= first else None


def test_a_job_that_storage_failed_goes_on_from_there(
    network: Network, server: Store, bucket: str, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echo_targets.schemas.dataset.object_store.ATTEMPTS", 1)
    for number in (11, 50):
        network.seen.clear()
        network.choose = failing_from(number)
        with pytest.raises((OSError, JobFailed)):
            run(f"s3://{bucket}/root")
        there = server.files(bucket, "root")
        assert {
            path for path, data in there.items() if path in whole and "/part-" in path and data != whole[path]
        } == set()
        network.choose = lambda *_: None
        for key in server.keys(bucket):  # the lease of a driver that could not give it up
            if "/lease/" in key:
                server.client.delete_object(Bucket=bucket, Key=key)
    run(f"s3://{bucket}/root")
    assert server.files(bucket, "root") == whole


# -- real speech ------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(speech: list[dict[str, Any]], tmp_path: Path) -> Path:
    """A corpus with files of several kinds, one of them missing; some without a duration in the manifest."""
    folder = tmp_path / "corpus"
    (folder / "audio").mkdir(parents=True)
    lines = []
    for number, row in enumerate(speech[:6]):
        samples, rate = soundfile.read(row["audio"])
        suffix = ("flac", "wav", "ogg")[number % 3]
        soundfile.write(folder / "audio" / f"{number}.{suffix}", samples, rate)
        line = {"id": row["id"], "audio": f"audio/{number}.{suffix}", "text": row["text"]}
        lines.append(line | ({"duration": row["duration"]} if number % 2 else {}))
    lines.append({"id": "lost", "audio": "audio/lost.flac", "text": "lost"})
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def upload(server: Store, bucket: str, folder: Path, prefix: str) -> str:
    for path, data in files(folder).items():
        server.put(bucket, f"{prefix}/{path}", data)
    return f"s3://{bucket}/{prefix}"


def ingest(root: str, manifest: str) -> None:
    source = {"kind": "manifest", "corpus": "speech", "manifest": manifest}
    run_stages(root, {"ingest": {"sources": [source]}}, shard_hours=0.005)  # type: ignore[arg-type]


def test_real_speech_from_a_bucket_to_a_bucket(
    network: Network, server: Store, bucket: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = upload(server, bucket, corpus, "corpora/speech")
    ingest(str(tmp_path / "root"), str(corpus / "m.jsonl"))
    network.choose = every(10, "GET", "get cut")
    ingest(f"s3://{bucket}/root", f"{place}/m.jsonl")
    assert "get cut" in network.faults()
    whole = files(tmp_path / "root")
    assert server.files(bucket, "root") == whole and len(whole) > 6
    network.choose = lambda *_: None

    root = f"s3://{bucket}/root"
    assert write_card(root) == f"{root}/README.md"
    write_card(str(tmp_path / "root"))
    assert server.get(bucket, "root/README.md") == (tmp_path / "root" / "README.md").read_bytes()
    assert check_command(root) == 0 and status_command(root) == 0
    (shard, *_) = [
        key for key in server.keys(bucket) if key.startswith("root/utterances/") and key.endswith(".parquet")
    ]
    assert check_command(f"s3://{bucket}/{shard}") == 0
    said = capsys.readouterr().out
    assert "no problems found" in said and "missing_file" in said and "lost.flac" in said
    data = bytearray(server.get(bucket, shard))
    data[len(data) // 2] ^= 1
    server.put(bucket, shard, bytes(data))
    assert check_command(root) == 1 and "digest" in capsys.readouterr().out


def test_headers_are_read_without_the_rest(network: Network, server: Store, bucket: str, tmp_path: Path) -> None:
    """Ten minutes of noise: its duration costs no more than its beginning."""
    noise = np.random.default_rng(0).normal(0, 0.1, 600 * 16_000).astype(np.float32)
    for suffix in ("flac", "wav"):
        soundfile.write(tmp_path / f"a.{suffix}", noise, 16_000)
        server.put(bucket, f"c/a.{suffix}", (tmp_path / f"a.{suffix}").read_bytes())
    lines = [{"id": suffix, "audio": f"a.{suffix}"} for suffix in ("flac", "wav")]
    server.put(bucket, "c/m.jsonl", "\n".join(map(json.dumps, lines)).encode())
    rows = list(entries([ManifestSource(kind="manifest", corpus="c", manifest=f"s3://{bucket}/c/m.jsonl")]))
    assert [(row["seconds"], row["size"]) for row in rows] == [
        (600.0, (tmp_path / f"a.{suffix}").stat().st_size) for suffix in ("flac", "wav")
    ]
    assert sum(method == "GET" for method, _, _ in network.seen) < 12


def listed(source: AnySource) -> list[dict[str, Any]]:
    return list(entries([source]))


def test_absolute_places_and_paths_that_lead_out(network: Network, server: Store, bucket: str, corpus: Path) -> None:
    place = upload(server, bucket, corpus, "c")
    lines = [
        {"id": "url", "audio": f"{place}/audio/0.flac"},
        {"id": "path", "audio": str(corpus / "audio" / "0.flac")},
        {"id": "out", "audio": "../c/audio/0.flac"},
        {"id": "relative", "audio": "./audio/../audio/0.flac"},
    ]
    server.put(bucket, "c/n.jsonl", "\n".join(map(json.dumps, lines)).encode())
    (corpus / "n.jsonl").write_text(json.dumps(lines[0]))
    remote = ManifestSource(kind="manifest", corpus="c", manifest=f"{place}/n.jsonl")
    rows = {row[KEY]: row for row in listed(remote)}
    assert "leads out of the manifest's folder" in rows["n.jsonl:3"]["error"]
    data = (corpus / "audio" / "0.flac").read_bytes()
    assert {rows[key]["size"] for key in ("url", "path", "relative")} == {len(data)}
    assert remote.open(rows["url"]["locator"]) == remote.open(rows["relative"]["locator"]) == data
    assert remote.open(rows["path"]["locator"]) == corpus / "audio" / "0.flac"
    local = ManifestSource(kind="manifest", corpus="c", manifest=str(corpus / "n.jsonl"))
    (row,) = listed(local)
    assert row["size"] == len(data) and local.open(row["locator"]) == data


def test_a_librispeech_tree_in_a_bucket(network: Network, server: Store, bucket: str, tmp_path: Path) -> None:
    chapter = tmp_path / "tree" / "dev-clean" / "84" / "121"
    chapter.mkdir(parents=True)
    soundfile.write(chapter / "84-121-0000.flac", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    (chapter / "84-121.trans.txt").write_text("84-121-0000 GO DO YOU HEAR\n84-121-0001 LOST\nnonsense line\n")
    place = upload(server, bucket, tmp_path / "tree", "LibriSpeech")
    remote = LibriSpeechSource(kind="librispeech", tree=f"{place}/", splits=["dev-clean"])
    assert listed(remote) == listed(remote.model_copy(update={"tree": str(tmp_path / "tree")}))
    assert remote.open("dev-clean/84/121/84-121-0000.flac") == (chapter / "84-121-0000.flac").read_bytes()
    with pytest.raises(SourceError, match="test-clean"):
        listed(remote.model_copy(update={"splits": ["test-clean"]}))


def test_an_mls_tree_in_a_bucket(network: Network, server: Store, bucket: str, tmp_path: Path) -> None:
    audio = tmp_path / "tree" / "train" / "audio" / "10" / "20"
    audio.mkdir(parents=True)
    soundfile.write(audio / "10_20_000001.flac", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    (tmp_path / "tree" / "train" / "transcripts.txt").write_text("10_20_000001\twords\n10_20_000002\tlost\n")
    (tmp_path / "tree" / "train" / "segments.txt").write_text("10_20_000001\tx.mp3\t1\t3\n")
    remote = MlsSource(kind="mls", tree=upload(server, bucket, tmp_path / "tree", "mls_english"))
    assert listed(remote) == listed(remote.model_copy(update={"tree": str(tmp_path / "tree")}))
    assert remote.open("train/audio/10/20/10_20_000001.flac") == (audio / "10_20_000001.flac").read_bytes()


def test_dialogues_in_a_bucket(network: Network, server: Store, bucket: str, tmp_path: Path) -> None:
    archive = tmp_path / "tree" / "S2S" / "QA" / "part-0"
    archive.mkdir(parents=True)
    soundfile.write(archive / "q.wav", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    turns = [{"from": "human", "audio": "q.wav"}, {"from": "gpt", "audio": "lost.wav"}]
    (archive / "data.json").write_text(json.dumps([{"conversations": turns}]))
    place = upload(server, bucket, tmp_path / "tree", "dialogues")
    remote = DialoguesSource(kind="dialogues", corpus="c", tree=place, subsets=["S2S/QA"])
    rows = listed(remote)
    assert rows == listed(remote.model_copy(update={"tree": str(tmp_path / "tree")}))
    assert [row["seconds"] for row in rows] == [2.0, 0.0]
    assert remote.open(rows[0]["locator"]) == (archive / "q.wav").read_bytes()
    network.choose = lambda number, method, path: "503" if "q.wav" in path else None
    with pytest.raises(SourceError, match=r"part-0/data\.json: .*Service Unavailable"):
        listed(remote)


def test_a_network_that_is_gone_is_no_missing_file(
    network: Network, server: Store, bucket: str, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Listing fails as a whole, since a plan without durations would be another plan; ingest fails the shard."""
    place = upload(server, bucket, corpus, "c")
    source = ManifestSource(kind="manifest", corpus="c", manifest=f"{place}/m.jsonl")
    planned = plan(listed(source), 1.0)
    with caplog.at_level(logging.CRITICAL):
        network.choose = lambda number, method, path: "503" if "/c/audio/" in path else None
        with pytest.raises(SourceError, match=r"m\.jsonl: .*Service Unavailable"):
            listed(source)
        parameters = IngestParameters(sources=[source]).model_dump(mode="json")
        spec = StageSpec(STAGES["ingest"], parameters)
        with pytest.raises(JobFailed, match="Service Unavailable"):
            list(Job(f"s3://{bucket}/root", planned, [spec], 1.0).run(Inline()))
    assert [key for key in server.keys(bucket) if key.startswith("root/rejects")] == []
    network.choose = lambda *_: None
    list(Job(f"s3://{bucket}/root", planned, [spec], 1.0).run(Inline()))
    assert Dataset(f"s3://{bucket}/root").read("utterances").num_rows == 6


def test_a_denied_file_is_a_reject_where_the_store_lets_others_be_read(
    network: Network, server: Store, bucket: str, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as all files are denied, the credentials are at fault: the shard fails, and nothing is rejected."""
    place = upload(server, bucket, corpus, "c")
    source = ManifestSource(kind="manifest", corpus="c", manifest=f"{place}/m.jsonl")
    planned = plan(listed(source), 1.0)
    names = [row["locator"] for row in listed(source)]
    parameters = IngestParameters(sources=[source]).model_dump(mode="json")
    spec = StageSpec(STAGES["ingest"], parameters)
    with caplog.at_level(logging.CRITICAL):
        network.choose = lambda number, method, path: "403" if "/c/audio/" in path else None
        with pytest.raises(JobFailed, match="Permission denied"):
            list(Job(f"s3://{bucket}/root", planned, [spec], 1.0).run(Inline()))
    assert [key for key in server.keys(bucket) if key.startswith("root/rejects")] == []
    network.choose = lambda number, method, path: "403" if path.split("?")[0].endswith(names[0]) else None
    list(Job(f"s3://{bucket}/root", planned, [spec], 1.0).run(Inline()))
    dataset = Dataset(f"s3://{bucket}/root")
    lost, denied = sorted((row["message"] for row in rejects(dataset, "utterances").values()), reverse=True)
    assert Path(names[0]).name in denied and "Permission denied" in denied
    assert "lost.flac" in lost and "No such file" in lost
    assert dataset.read("utterances").num_rows == len(names) - 2
