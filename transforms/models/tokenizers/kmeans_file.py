"""Centroids in files of other projects. The format is recognized by the first bytes.

- a joblib pickle of scikit-learn's k-means: fairseq, GSLM, textlesslib, speechbrain (`kmeans_pickle`);
- a `torch.save` file: a tensor, or a dict with one matrix (`cluster_centers_` in bshall's files);
- `.npy`, or `.npz` with one matrix.

Nothing in a file is executed. For a faiss index (mHuBERT-147), the error shows a command that writes its centroids as
`.npy`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import check_held
from echo_targets.transforms.models.tokenizers.kmeans_pickle import read_pickle

NUMPY, ZIP, FAISS = b"\x93NUMPY", b"PK", b"Ix"
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes that `torch.save` wrote before it wrote zip files (torch 1.6)."""
MOST_BYTES = 1 << 32


def read_centroids(path: Path) -> np.ndarray:
    """Return the (K, D) float32 centroids of a k-means file.

    Raises:
        ModelError: the file is missing or damaged, does not hold exactly one matrix, or names unexpected classes.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(OLD_TORCH))
    except OSError as error:
        raise ModelError(f"{path}: can't read the k-means file ({error.strerror})") from error
    if start.startswith(FAISS):
        raise ModelError(_faiss_remedy(path))
    try:
        if start.startswith(NUMPY):
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        elif start.startswith(ZIP):
            found = _only_matrix(path, _of_numpy(path) if _is_npz(path) else _of_torch(path))
        elif start == OLD_TORCH:
            found = _only_matrix(path, _of_torch(path))
        else:
            return np.ascontiguousarray(_of_pickle(path), np.float32)
        if found.ndim != 2 or found.dtype.kind != "f":
            raise ModelError(
                f"{path}: holds an array of {found.dtype} {found.shape}; expected floats (K, D): save the centroids"
            )
        return np.ascontiguousarray(found, np.float32)
    except ModelError:
        raise
    except Exception as error:  # numpy, torch and zipfile each raise their own errors
        raise ModelError(f"{path}: damaged, or more than arrays of numbers ({error}); copy it again") from error


def _of_pickle(path: Path) -> np.ndarray:
    try:
        return read_pickle(path)
    except Exception as error:  # a damaged pickle can raise anything
        raise ModelError(
            f"{path}: not a plain k-means file of scikit-learn and joblib ({error}); if you trust it, rewrite it: "
            f"python -c \"import joblib; joblib.dump(joblib.load('{path}'), '{path.stem}-plain.bin')\""
        ) from error


def _is_npz(path: Path) -> bool:
    with zipfile.ZipFile(path) as file:
        if (size := sum(member.file_size for member in file.infolist())) > MOST_BYTES:
            raise ValueError(f"{size} bytes is too large for centroids")
        return any(name.endswith(".npy") for name in file.namelist())


def _of_numpy(path: Path) -> Mapping[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _of_torch(path: Path) -> Mapping[str, Any]:
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True)
    named = found if isinstance(found, Mapping) else {"the tensor": found}
    tensors = {str(name): each.detach() for name, each in named.items() if isinstance(each, torch.Tensor)}
    for name, tensor in tensors.items():
        check_held(path, name, tensor)
    return {name: (each.float() if each.is_floating_point() else each).numpy() for name, each in tensors.items()}


def _only_matrix(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    matrices = [name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind == "f"]
    if len(matrices) != 1:
        names = f"the matrices {', '.join(matrices)}" if matrices else "no matrix of floats"
        raise ModelError(f"{path} holds {names}: save only the centroids, (K, D), with numpy.save")
    return arrays[matrices[0]]


def _faiss_remedy(path: Path) -> str:
    """Return the error message for an index with coarse centroids c behind a projection A.

    A has orthonormal rows, so the centroid nearest to A x is the one whose c A is nearest to x.
    """
    program = (
        f"import faiss, numpy as np; i = faiss.read_index({str(path)!r}); v = faiss.extract_index_ivf(i); "
        "a = faiss.downcast_VectorTransform(i.chain.at(0)); "
        "c = np.stack([v.quantizer.reconstruct(k) for k in range(v.nlist)]); "
        f"np.save({str(path.with_suffix('.npy'))!r}, c @ faiss.vector_to_array(a.A).reshape(a.d_out, a.d_in))"
    )
    return f"{path} is a faiss index; if you trust it, write its centroids once: python -c {quote(program)}"
