"""Centroids of a k-means file of fairseq or speechbrain: a joblib pickle of scikit-learn's estimator.

Nothing in the file runs. Names of numpy, scikit-learn and copyreg become inert records of what they were given, any
other name is refused, and the bytes of arrays, which joblib writes between the opcodes, are read as numbers alone.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from transforms.models.embedded import ModelError

INERT = ("numpy", "sklearn")
OTHERS = {("copyreg", "_reconstructor"), ("builtins", "object"), ("_codecs", "encode")}
WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")


class Inert:
    """What stands for an object of the file: the arguments and the state it was given."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    args: tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Dtype(Inert):
    """numpy.dtype."""

    def read(self) -> np.dtype[Any]:
        """The dtype of plain numbers.

        Raises:
            ValueError: of anything else.
        """
        code = str(self.args[0])
        if not re.fullmatch(r"[fiub][1248]", code):
            raise ValueError(f"an array of {code!r}")
        order = self.state[1] if self.state else "<"
        return np.dtype(f"{order}{code}")


class Wrapper(Inert):
    """joblib's NumpyArrayWrapper: an array whose bytes follow."""

    def read(self, file: BinaryIO) -> np.ndarray:
        """The array, whose bytes follow in the file."""
        about = self.state
        dtype, shape = about["dtype"].read(), tuple(about["shape"])
        if about.get("numpy_array_alignment_bytes"):
            file.read(file.read(1)[0])
        size = math.prod(shape) * dtype.itemsize
        if not 0 <= size <= os.fstat(file.fileno()).st_size - file.tell():
            raise ValueError(f"an array of {size} bytes, more than the file holds")
        data = file.read(size)
        return np.frombuffer(data, dtype).reshape(shape, order="F" if about["order"] == "F" else "C")


class Reader(pickle._Unpickler):
    """An unpickler that makes inert records and arrays of numbers."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == WRAPPER:
            return Wrapper
        if (module, name) == ("numpy", "dtype"):
            return Dtype
        if module.partition(".")[0] in INERT or (module, name) in OTHERS:
            return Inert
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def load_build(self) -> None:
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]
        if isinstance(self.stack[-1], Wrapper):
            self.stack[-1] = self.stack[-1].read(self._file)

    dispatch[pickle.BUILD[0]] = load_build


def read_centroids(path: Path) -> np.ndarray:
    """(K, D) float32 centroids of a k-means file.

    Raises:
        ModelError: the file is missing, is not k-means of scikit-learn, or names what is not needed for it.
    """
    try:
        with path.open("rb") as file:
            centroids = Reader(file).load().state["cluster_centers_"]
        return np.ascontiguousarray(centroids, np.float32)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such k-means file") from error
    except Exception as error:  # a damaged pickle raises whatever its opcodes stumble over
        raise ModelError(
            f"{path}: not a plain k-means file of scikit-learn and joblib ({error}); where you trust it, write it "
            f"again: python -c \"import joblib; joblib.dump(joblib.load('{path}'), '{path.stem}-plain.bin')\""
        ) from error
