"""k-means files as scikit-learn and joblib write them, and what a hostile one can't do."""

from __future__ import annotations

import os
import pickle
import shlex
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.tokenizers.kmeans_file import read_centroids

FRAMES = np.random.default_rng(0).normal(size=(300, 12))


@pytest.mark.parametrize("kind", [MiniBatchKMeans, KMeans])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_centroids_are_those_of_joblib(tmp_path: Path, kind: Any, dtype: str, protocol: int) -> None:
    state = np.random.RandomState(1)  # an object of numpy's within the file
    model = kind(9, n_init=1, random_state=state).fit(FRAMES.astype(dtype))
    joblib.dump(model, tmp_path / "km.bin", protocol=protocol)
    found = read_centroids(tmp_path / "km.bin")
    assert found.dtype == np.float32 and np.array_equal(found, model.cluster_centers_.astype(np.float32))


def test_an_array_in_fortran_order(tmp_path: Path) -> None:
    model = MiniBatchKMeans(9, n_init=1).fit(FRAMES)
    model.cluster_centers_ = np.asfortranarray(model.cluster_centers_)
    joblib.dump(model, tmp_path / "km.bin")
    assert np.array_equal(read_centroids(tmp_path / "km.bin"), model.cluster_centers_.astype(np.float32))


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, os.system, eval, joblib.load, getattr], ids=lambda each: each.__name__)
def test_nothing_in_a_file_runs(tmp_path: Path, function: Any) -> None:
    model = MiniBatchKMeans(9, n_init=1).fit(FRAMES)
    marker = tmp_path / "ran"
    argument = {os.system: f"touch {marker}", eval: f"open({str(marker)!r}, 'w')"}.get(function, str(marker))
    model.tol = Calls(function, argument)
    (tmp_path / "km.bin").write_bytes(pickle.dumps(model))
    with pytest.raises(ModelError, match="it names"):
        read_centroids(tmp_path / "km.bin")
    assert not marker.exists()


def test_what_numpy_can_do_is_not_done(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    model = MiniBatchKMeans(9, n_init=1).fit(FRAMES)
    model.tol = Calls(np.savetxt, str(marker), [1.0])
    joblib.dump(model, tmp_path / "km.bin")
    read_centroids(tmp_path / "km.bin")
    assert not marker.exists()


def test_damaged_compressed_and_other_files_are_refused(tmp_path: Path) -> None:
    model = MiniBatchKMeans(9, n_init=1).fit(FRAMES)
    path = tmp_path / "km.bin"
    joblib.dump(model, path)
    whole = path.read_bytes()
    joblib.dump(model, tmp_path / "packed.bin", compress=3)
    joblib.dump({"cluster_centers_": [1]}, tmp_path / "other.bin")
    files = [tmp_path / "packed.bin", tmp_path / "other.bin"]
    for cut in (0, 10, len(whole) // 2):
        files.append(tmp_path / f"{cut}.bin")
        files[-1].write_bytes(whole[:cut])
    for file in files:
        with pytest.raises(ModelError, match=r"not a plain k-means file.*joblib\.dump"):
            read_centroids(file)
    with pytest.raises(ModelError, match="No such file"):
        read_centroids(tmp_path / "none.bin")


CENTROIDS = np.random.default_rng(3).normal(size=(9, 12)).astype(np.float32)


def write_bshall(path: Path) -> None:
    """As bshall's `kmeans100` and `dusted` files are: numbers beside the tensor."""
    torch.save({"n_features_in_": 12, "_n_threads": 4, "cluster_centers_": torch.from_numpy(CENTROIDS)}, path)


WRITERS = {
    "a tensor": lambda path: torch.save(torch.from_numpy(CENTROIDS), path),
    "a half tensor": lambda path: torch.save(torch.from_numpy(CENTROIDS).half(), path),
    "a parameter": lambda path: torch.save(torch.nn.Parameter(torch.from_numpy(CENTROIDS)), path),
    "a transposed view": lambda path: torch.save(torch.from_numpy(np.ascontiguousarray(CENTROIDS.T)).T, path),
    "old torch": lambda path: torch.save(
        {"centroids": torch.from_numpy(CENTROIDS)}, path, _use_new_zipfile_serialization=False
    ),
    "bshall": write_bshall,
    "npy": lambda path: np.save(path.open("wb"), CENTROIDS),
    "npy of float64 in Fortran order": lambda path: np.save(path.open("wb"), np.asfortranarray(CENTROIDS, np.float64)),
    "npz": lambda path: np.savez(path.open("wb"), centroids=CENTROIDS, counts=np.arange(9)),
    "packed npz": lambda path: np.savez_compressed(path.open("wb"), arr_0=CENTROIDS),
}


@pytest.mark.parametrize("how", WRITERS)
def test_centroids_of_torch_and_numpy(tmp_path: Path, how: str) -> None:
    WRITERS[how](tmp_path / "km.bin")  # the bytes say what it is, not the name
    found = read_centroids(tmp_path / "km.bin")
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert np.allclose(found, CENTROIDS, atol=1e-3 if "half" in how else 0)


def test_the_joblib_of_old_scikit_learn(tmp_path: Path) -> None:
    model = MiniBatchKMeans(9, n_init=1).fit(FRAMES)
    joblib.dump(model, tmp_path / "km.bin", protocol=3)
    written = (tmp_path / "km.bin").read_bytes()
    assert b"cjoblib.numpy_pickle\n" in written
    old = written.replace(b"cjoblib.numpy_pickle\n", b"csklearn.externals.joblib.numpy_pickle\n")
    (tmp_path / "km.bin").write_bytes(old.replace(b"csklearn.cluster._kmeans\n", b"csklearn.cluster.k_means_\n"))
    # an array's bytes are aligned by its place in the file, which the longer names have moved
    assert np.array_equal(read_centroids(tmp_path / "km.bin"), model.cluster_centers_.astype(np.float32))


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


REFUSED = {
    "an object": (lambda path: torch.save({"c": Touches(path.parent / "ran")}, path), "damaged, or more than arrays"),
    "an array of objects": (
        lambda path: np.save(path.open("wb"), np.array([Touches(path.parent / "ran")]), allow_pickle=True),
        "damaged, or more than arrays",
    ),
    "two matrices": (
        lambda path: np.savez(path.open("wb"), mean=CENTROIDS, centers=CENTROIDS),
        "holds the matrices mean, centers: save only the centroids",
    ),
    "no matrix": (lambda path: torch.save({"k": 9, "ids": torch.arange(9)[None]}, path), "no matrix of floats"),
    "a list": (lambda path: torch.save([1, 2], path), "no matrix of floats"),
    "a vector": (lambda path: np.save(path.open("wb"), CENTROIDS[0]), r"float32 \(12,\); expected floats \(K, D\)"),
    "units": (lambda path: np.save(path.open("wb"), np.ones((2, 2), int)), r"int64 \(2, 2\); expected floats"),
    "numbers that are not there": (
        lambda path: torch.save(torch.zeros(1).expand(1 << 20, 1 << 20), path),
        "claims more numbers than the file holds",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_holds_no_centroids_is_refused_and_does_not_run(tmp_path: Path, what: str) -> None:
    write, message = REFUSED[what]
    write(tmp_path / "km.bin")
    with pytest.raises(ModelError, match=message):
        read_centroids(tmp_path / "km.bin")
    assert not (tmp_path / "ran").exists()


def test_an_array_that_is_cut_short_or_claims_much(tmp_path: Path) -> None:
    np.save(tmp_path / "km.npy", CENTROIDS)
    whole = (tmp_path / "km.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-4])
    (tmp_path / "much.npy").write_bytes(whole.replace(b"(9, 12)", b"(9, 99)"))
    for name in ("cut", "much"):
        with pytest.raises(ModelError, match=rf"{name}\.npy: damaged"):
            read_centroids(tmp_path / f"{name}.npy")


def test_a_faiss_index_is_refused_with_the_line_that_writes_its_centroids(tmp_path: Path) -> None:
    path = tmp_path / "mhubert147_faiss.index"
    path.write_bytes(b"IxPT" + bytes(100))
    with pytest.raises(ModelError, match="a faiss index") as refusal:
        read_centroids(path)
    python, option, program = shlex.split(str(refusal.value).partition("once: ")[2])
    assert (python, option) == ("python", "-c")
    compile(program, "the line", "exec")
    assert str(path.with_suffix(".npy")) in program
