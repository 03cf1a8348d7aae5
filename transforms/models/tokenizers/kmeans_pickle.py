"""Centroids in a joblib pickle of scikit-learn's k-means, as published by fairseq, textlesslib and speechbrain.

Nothing in the file is executed. Names of numpy, scikit-learn and copyreg become inert records of their arguments; any
other name is an error. The bytes of arrays, which joblib writes between the opcodes, are parsed only as numbers.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

INERT = ("numpy", "sklearn")
OTHERS = {("copyreg", "_reconstructor"), ("builtins", "object"), ("_codecs", "encode")}
WRAPPERS = {(f"{package}numpy_pickle", "NumpyArrayWrapper") for package in ("joblib.", "sklearn.externals.joblib.")}
"""Before version 0.23, scikit-learn bundled its own joblib, which wrote some of the GSLM files."""


class Inert:
    """Stands for an object of the file: records its arguments and state."""

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
        """Return the dtype of plain numbers.

        Raises:
            ValueError: for any other dtype.
        """
        code = str(self.args[0])
        if not re.fullmatch(r"[fiub][1248]", code):
            raise ValueError(f"an array of {code!r}")
        order = self.state[1] if self.state else "<"
        return np.dtype(f"{order}{code}")


class Wrapper(Inert):
    """joblib's NumpyArrayWrapper: an array whose bytes follow."""

    def read(self, file: BinaryIO) -> np.ndarray:
        """Return the array, whose bytes follow in the file."""
        about = self.state
        dtype, shape = about["dtype"].read(), tuple(about["shape"])
        if about.get("numpy_array_alignment_bytes"):
            file.read(file.read(1)[0])
        size = math.prod(shape) * dtype.itemsize
        if not 0 <= size <= os.fstat(file.fileno()).st_size - file.tell():
            raise ValueError(f"an array claims {size} bytes, more than the file holds")
        data = file.read(size)
        return np.frombuffer(data, dtype).reshape(shape, order="F" if about["order"] == "F" else "C")


class Unpickler(pickle._Unpickler):
    """An unpickler that makes inert records and arrays of numbers."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in WRAPPERS:
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


def read_pickle(path: Path) -> np.ndarray:
    """Return `cluster_centers_` of a k-means object that joblib pickled, (K, D) of its own dtype.

    Raises:
        Exception: from the unpickler, or anything else that a damaged file causes.
    """
    with path.open("rb") as file:
        return np.asarray(Unpickler(file).load().state["cluster_centers_"])
