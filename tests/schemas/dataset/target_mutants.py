"""For each rule of a target, changes that break it and no other."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.schemas.samples import Row, put_target

TARGETS: dict[str, Row] = {
    "codebook_id_present": {"codebook_id": ""},
    "codebook_size_range": {"codebook_size": 70_000},
    "num_codebooks_range": {"num_codebooks": 0, "units": [[], []], "unit_words": None},
    "sampling_rate_range": {"sampling_rate": 0},
    "hop_samples_range": {"hop_samples": 0},
    "sub_lengths_lengths": {"stop_reason": ["end"]},
    "units_codebooks": {"units": [[[1, 2, 1]], [[7], [8]]]},
    "units_lengths": {"units": [[[1, 2]], [[7]]]},
    "units_in_codebook": {"units": [[[1, 2, 100]], [[7]]]},
    "units_collapsed": {"units": [[[1, 2, 2]], [[7]]]},
    "durations_range": {"durations": [[1, 4, 0], [3]]},
    "unit_words_codebook": {"num_codebooks": 2, "units": [[[1, 2, 1]] * 2, [[7], [8]]]},
    "unit_words_range": {"unit_words": [[3], [-1]]},
    "mean_logprob_range": {"mean_logprob": [-0.5, 0.25]},
    "stop_reason_known": {"stop_reason": ["end", "bored"]},
    "unit_error_rate_range": {"unit_error_rate": math.nan},
    "target_cer_range": {"target_cer": -0.5},
}


def in_struct(origin: str, changes: Row) -> Callable[[Row], None]:
    """Return the change of a struct of `echo_targets`."""
    return lambda row: row.update({origin: put_target({"t2c": None}, **changes)["t2c"]})


def in_columns(changes: Row) -> Callable[[Row], None]:
    """Return the change of the columns of `training/echo`."""
    return lambda row: put_target(row, **changes) and None
