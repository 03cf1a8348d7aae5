"""Fences: outlier limits for a corpus's speech rates (Tukey 1977: 1.5 times the interquartile range).

A shard's worker sees only that shard, so `echo-targets fit-fences` looks at all of them first; publish loads its file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from echo_targets.schemas.errors import UserError

REACH = 1.5
MAX_FILE_BYTES = 1 << 24

Group = tuple[str, str]
"""A corpus and a language."""


class FencesError(UserError):
    """A file of fences can't be used."""


class Fence(BaseModel):
    """Quartiles of the rates of one corpus and language, and the fences 1.5 times their distance beyond them.

    Attributes:
        count: number of utterances with a rate.
        q1, q3: quartiles, interpolated linearly.
        low, high: the fences; a rate equal to one is inside.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    corpus: str
    language: str
    count: int = Field(ge=1)
    q1: float
    q3: float
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Fence:
        if not self.low <= self.q1 <= self.q3 <= self.high:
            raise ValueError(f"low, q1, q3 and high of {self.corpus}, {self.language} are not in order")
        return self


class RateFences(BaseModel):
    """Fences of characters per second, by corpus and language.

    Attributes:
        score: the column of `measures` that the fences limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: Literal["chars_per_s"] = "chars_per_s"
    fences: tuple[Fence, ...]

    @model_validator(mode="after")
    def _unique(self) -> RateFences:
        if len({(fence.corpus, fence.language) for fence in self.fences}) < len(self.fences):
            raise ValueError("the same corpus and language is listed twice")
        return self

    @classmethod
    def fit(cls, rates: Mapping[Group, np.ndarray]) -> RateFences:
        """Return the fences of each group's rates (float32, any order). Groups without rates get none."""
        return cls(fences=tuple(_fence(*group, rates[group]) for group in sorted(rates) if len(rates[group])))

    def save(self, path: Path) -> None:
        """Write the fences as JSON; equal fences give equal bytes."""
        path.write_text(json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> RateFences:
        """Load saved fences.

        Raises:
            FencesError: the file is missing, is damaged, or holds something else.
        """
        remedy = "fit one with `echo-targets fit-fences`"
        if not path.is_file():
            raise FencesError(f"{path}: no such fences file; {remedy}")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise FencesError(f"{path}: {size} bytes is too large for a fences file; {remedy}")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise FencesError(f"{path}: not a fences file: {where and f'{where}: '}{first['msg']}; {remedy}") from error


def _fence(corpus: str, language: str, rates: np.ndarray) -> Fence:
    q1, q3 = np.quantile(rates.astype(np.float64), (0.25, 0.75))
    reach = REACH * (q3 - q1)
    values = {"q1": q1, "q3": q3, "low": q1 - reach, "high": q3 + reach}
    rounded = {name: round(float(value), 4) for name, value in values.items()}
    return Fence(corpus=corpus, language=language, count=len(rates), **rounded)
