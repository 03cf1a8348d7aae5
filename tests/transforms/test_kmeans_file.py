"""k-means files as scikit-learn and joblib write them, and what a hostile one can't do."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans

from transforms.models.embedded import ModelError
from transforms.models.kmeans_file import read_centroids

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
    with pytest.raises(ModelError, match="no such"):
        read_centroids(tmp_path / "none.bin")
