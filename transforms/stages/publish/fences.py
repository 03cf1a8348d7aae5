"""Fences: what a corpus's own speech rates say is too slow or too fast (Tukey 1977: 1.5 times the interquartile range).

A shard sees its own rows alone, so `echo-targets fit-fences` looks at all of them first, and publish reads its file.
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
    """A file of fences that can't be used."""


class Fence(BaseModel):
    """Quartiles of one corpus's rates in one language, and what lies 1.5 times their distance beyond them.

    Attributes:
        count: utterances that had a rate.
        q1, q3: quartiles, interpolated linearly.
        low, high: the fences; a rate on one is inside.
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
    """Fences of characters a second, by corpus and language.

    Attributes:
        score: the column of `measures` that they are of.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: Literal["chars_per_s"] = "chars_per_s"
    fences: tuple[Fence, ...]

    @model_validator(mode="after")
    def _unique(self) -> RateFences:
        if len({(fence.corpus, fence.language) for fence in self.fences}) < len(self.fences):
            raise ValueError("a corpus and language stand there twice")
        return self

    @classmethod
    def fit(cls, rates: Mapping[Group, np.ndarray]) -> RateFences:
        """Fences of each group's rates, float32 in any order; groups without a rate have none."""
        return cls(fences=tuple(_fence(*group, rates[group]) for group in sorted(rates) if len(rates[group])))

    def save(self, path: Path) -> None:
        """Writes them as JSON; equal fences give equal bytes."""
        path.write_text(json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> RateFences:
        """Reads saved fences.

        Raises:
            FencesError: there is no such file, or it is damaged or holds something else.
        """
        remedy = "fit one with `echo-targets fit-fences`"
        if not path.is_file():
            raise FencesError(f"{path}: no such file of fences; {remedy}")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise FencesError(f"{path}: {size} bytes is more than fences have; {remedy}")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise FencesError(f"{path}: not fences: {where and f'{where}: '}{first['msg']}; {remedy}") from error


def _fence(corpus: str, language: str, rates: np.ndarray) -> Fence:
    q1, q3 = np.quantile(rates.astype(np.float64), (0.25, 0.75))
    reach = REACH * (q3 - q1)
    values = {"q1": q1, "q3": q3, "low": q1 - reach, "high": q3 + reach}
    rounded = {name: round(float(value), 4) for name, value in values.items()}
    return Fence(corpus=corpus, language=language, count=len(rates), **rounded)
