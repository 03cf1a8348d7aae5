"""publish: the tables joined into what each stage of echo training reads, and the thresholds applied.

Thresholds live here alone: scores are stored upstream and never thrown away, so a new threshold recomputes nothing
else. A row that a threshold holds back is a reject of class `filtered_…`: the funnel is counted from them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from schemas import ALIGNMENTS, ECHO, ECHO_TARGETS, KEY, S2T, SAMPLE_RATE, T2C, TRANSCRIPTS, UNITS, UTTERANCES, Table
from schemas.base import Mask
from schemas.rules import rows_with
from transforms.base import FILTERED, Before, Output, Parameters, Reject, Transform, joined
from transforms.echo import user_turns

Role = Literal["user", "assistant", "narrator"]
FLAC_SHARE = 16
"""How much less memory a second of FLAC takes than one that a model works on, at the least."""
Value = Callable[[pa.RecordBatch], pa.Array]


@dataclass(frozen=True)
class Check:
    """A reason to hold rows back, seen on whole columns: only the rows that are held become Python objects.

    Attributes:
        name: the reject's class, after `filtered_`.
        held: gives a mask of the rows that are held back (null counts as let through).
        says: gives what to say of each held row, from these rows alone.
    """

    name: str
    held: Callable[[pa.RecordBatch], Mask]
    says: Callable[[pa.RecordBatch], Iterable[str]]


class Publish(Transform):
    """A training set: rows that pass every check, in the order of the checks; the first that fails gives the reason."""

    wants_audio = True
    window_rows: ClassVar[int] = 200  # what is copied is the audio

    @abstractmethod
    def checks(self) -> Iterable[Check]:
        """The checks, on input rows that have their `text` and `seconds` as columns too."""

    @abstractmethod
    def columns(self, rows: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """The columns of the training row that come from a joined table."""

    def costs(self, rows: pa.Table) -> list[int]:
        """Nothing is padded, and no model waits: a batch holds FLAC, about a byte a sample, or no audio at all."""
        return [cost // FLAC_SHARE for cost in super().costs(rows)] if self.wants_audio else [0] * len(rows)

    def __call__(self, batch: pa.Table) -> Output:
        (rows,) = batch.combine_chunks().to_batches()
        rows = rows.append_column("text", _text(rows)).append_column("seconds", _seconds(rows))
        passed = pa.repeat(True, len(rows))
        rejects: list[Reject] = []
        for check in self.checks():
            held = pc.and_(passed, pc.fill_null(check.held(rows), False))
            passed = pc.and_not(passed, held)
            if held.true_count:
                refused = rows.filter(held)
                says = zip(refused[KEY].to_pylist(), check.says(refused), strict=True)
                rejects += [Reject(key, f"{FILTERED}_{check.name}", message) for key, message in says]
        found = {name: rows[name] for name in rows.schema.names} | dict(self.columns(rows))
        training = pa.table([found[name] for name in self.writes.columns], schema=self.writes.schema)
        return Output(training.filter(passed) if rejects else training, rejects)


def _text(rows: pa.RecordBatch) -> pa.StringArray:
    """The reference where there is one, else the transcript, else nothing."""
    reference = rows["reference_text"]
    heard = pc.fill_null(_of(TRANSCRIPTS, "text")(rows), "")
    is_there = pc.fill_null(pc.not_equal(reference, ""), False)
    return pc.utf8_trim_whitespace(pc.if_else(is_there, reference, heard))


def _seconds(rows: pa.RecordBatch) -> pa.DoubleArray:
    return pc.divide(rows["num_samples"].cast(pa.float64()), float(SAMPLE_RATE))


def _rate(rows: pa.RecordBatch) -> pa.DoubleArray:
    """Characters of the text a second."""
    return pc.divide(pc.utf8_length(rows["text"]).cast(pa.float64()), rows["seconds"])


def _of(table: Table, column: str) -> Value:
    """A column of a joined table; null where the row has none."""
    return lambda rows: pc.struct_field(rows[table.name], column)


def _of_roles(rows: pa.Table, roles: list[Role]) -> pa.Table:
    return rows.filter(pc.is_in(rows["role"].cast(pa.string()), value_set=pa.array(roles, pa.string())))


def _has(table: Table) -> Check:
    stage = table.name
    return Check(
        f"no_{stage}", lambda rows: pc.is_null(rows[stage]), lambda rows: [f"has no row in {stage}"] * len(rows)
    )


def _has_text() -> Check:
    return Check(
        "no_text",
        lambda rows: pc.equal(rows["text"], ""),
        lambda rows: ["has neither reference text nor transcript"] * len(rows),
    )


def _beyond(compare: Callable[..., Mask], scores: pa.Array, limit: float | None) -> Mask:
    """Which scores are beyond a limit, in their own precision: the float32 nearest to 0.3 is above 0.3."""
    return compare(scores, pa.scalar(limit, scores.type))


def _at_most(name: str, limit: float | None, value: Value) -> Check:
    return Check(
        name,
        lambda rows: _beyond(pc.greater, value(rows), limit),
        lambda rows: [f"{name} {found:g} is above max_{name}={limit:g}" for found in value(rows).to_pylist()],
    )


def _at_least(name: str, limit: float | None, value: Value) -> Check:
    return Check(
        name,
        lambda rows: _beyond(pc.less, value(rows), limit),
        lambda rows: [f"{name} {found:g} is below min_{name}={limit:g}" for found in value(rows).to_pylist()],
    )


def _all_at_least(name: str, limit: float | None, lists: Value) -> Check:
    """As `_at_least`, of the least in a row's list."""
    return Check(
        name,
        lambda rows: rows_with(lists(rows), _beyond(pc.less, pc.list_flatten(lists(rows)), limit)),
        lambda rows: [f"{name} {min(found):g} is below min_{name}={limit:g}" for found in lists(rows).to_pylist()],
    )


def _all_ended_by(stop_reasons: list[str]) -> Check:
    reasons = _of(ECHO_TARGETS, "stop_reason")
    allowed = pa.array(stop_reasons, pa.string())

    def others(rows: pa.RecordBatch) -> pa.BooleanArray:
        return rows_with(reasons(rows), pc.invert(pc.is_in(pc.list_flatten(reasons(rows)), value_set=allowed)))

    def says(rows: pa.RecordBatch) -> list[str]:
        ends = [sorted(set(found) - set(stop_reasons)) for found in reasons(rows).to_pylist()]
        return [f"a segment ended by {', '.join(found)}" for found in ends]

    return Check("stop_reason", others, says)


def _answers(rows: pa.Table, everyone: pa.Table) -> pa.Array:
    """Text of the assistant's turn that follows each row's; of two such turns the last counts, as it does in echo."""
    spoken = pc.equal(everyone["role"].cast(pa.string()), "assistant")
    replies = everyone.filter(pc.and_(spoken, pc.not_equal(everyone["dialogue_id"], "")))
    replies = replies.take(pa.array(range(len(replies) - 1, -1, -1), pa.int64())).combine_chunks()
    answered = _turn(replies["dialogue_id"], pc.subtract(replies["turn"], 1)).combine_chunks()
    return replies["reference_text"].take(pc.index_in(_turn(rows["dialogue_id"], rows["turn"]), value_set=answered))


def _turn(dialogue: pa.Array, turn: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(turn.cast(pa.string()), dialogue, " ")


class S2TParameters(Parameters):
    """Thresholds of training/s2t. A score that a row lacks holds nothing back; null switches a threshold off.

    Attributes:
        roles: whose turns.
        min_seconds, max_seconds: length of the audio.
        max_wer: of the transcript against the reference.
        min_alignment_coverage: share of words with a time of their own.
    """

    roles: list[Role] = ["user", "narrator"]
    min_seconds: float | None = 0.3
    max_seconds: float | None = 30.0
    max_wer: float | None = 0.5
    min_alignment_coverage: float | None = 0.5


class PublishS2T(Publish):
    """Stage I: audio and its text, with the reply where the turn was answered."""

    name: ClassVar[str] = "publish_s2t"
    version: ClassVar[int] = 3
    reads = (UTTERANCES, TRANSCRIPTS, ALIGNMENTS)
    writes = S2T
    Parameters = S2TParameters
    parameters: S2TParameters

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        rows = super().rows(_of_roles(window, self.parameters.roles), shard)
        return rows.append_column("response_text", _answers(rows, shard["utterances"]))

    def checks(self) -> Iterable[Check]:
        limits = self.parameters
        return (
            _has_text(),
            _at_least("seconds", limits.min_seconds, lambda rows: rows["seconds"]),
            _at_most("seconds", limits.max_seconds, lambda rows: rows["seconds"]),
            _at_most("wer", limits.max_wer, _of(TRANSCRIPTS, "wer_vs_reference")),
            _at_least("alignment_coverage", limits.min_alignment_coverage, _of(ALIGNMENTS, "coverage")),
        )

    def columns(self, rows: pa.RecordBatch) -> Mapping[str, pa.Array]:
        return {
            "wer_vs_reference": _of(TRANSCRIPTS, "wer_vs_reference")(rows),
            "alignment_coverage": _of(ALIGNMENTS, "coverage")(rows),
        }


class T2CParameters(Parameters):
    """Thresholds of training/t2c.

    Attributes:
        roles: whose speech the decoder learns.
        max_seconds: length of the audio.
        max_wer: of the transcript against the reference.
        max_chars_per_s, min_chars_per_s: speech rate of the text that is learnt.
    """

    roles: list[Role] = ["assistant", "narrator"]
    max_seconds: float | None = 30.0
    max_wer: float | None = 0.5
    min_chars_per_s: float | None = 3.0
    max_chars_per_s: float | None = 40.0


class PublishT2C(Publish):
    """Stage II: a text and the units it is spoken with."""

    name: ClassVar[str] = "publish_t2c"
    version: ClassVar[int] = 2
    before = Before(2, "1.0.0")
    reads = (UTTERANCES, TRANSCRIPTS, UNITS)
    writes = T2C
    wants_audio = False
    window_rows = Transform.window_rows
    Parameters = T2CParameters
    parameters: T2CParameters

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        return super().rows(_of_roles(window, self.parameters.roles), shard)

    def checks(self) -> Iterable[Check]:
        limits = self.parameters
        return (
            _has(UNITS),
            _has_text(),
            _at_most("seconds", limits.max_seconds, lambda rows: rows["seconds"]),
            _at_most("wer", limits.max_wer, _of(TRANSCRIPTS, "wer_vs_reference")),
            _at_least("chars_per_s", limits.min_chars_per_s, _rate),
            _at_most("chars_per_s", limits.max_chars_per_s, _rate),
        )

    def columns(self, rows: pa.RecordBatch) -> Mapping[str, pa.Array]:
        return {name: _of(UNITS, name)(rows) for name in UNITS.columns if name in T2C.columns and name != KEY}


class EchoSetParameters(Parameters):
    """Thresholds of training/echo.

    Attributes:
        max_seconds: length of the user's audio.
        min_mean_logprob: of the worst segment.
        max_unit_error_rate: of the targets against the recorded units.
        max_target_cer: of what the targets are read as against the reply's text.
        max_wer: of the user's transcript against its reference.
        stop_reasons: how every segment must have ended.
    """

    max_seconds: float | None = 30.0
    min_mean_logprob: float | None = -2.0
    max_unit_error_rate: float | None = None
    max_target_cer: float | None = None
    max_wer: float | None = 0.5
    stop_reasons: list[Literal["end", "length", "repetition"]] = ["end"]


class PublishEcho(Publish):
    """Stage III: the user's audio, the reply's tokens and segments, and the units of each."""

    name: ClassVar[str] = "publish_echo"
    version: ClassVar[int] = 2
    reads = (UTTERANCES, TRANSCRIPTS, ECHO_TARGETS)
    writes = ECHO
    Parameters = EchoSetParameters
    parameters: EchoSetParameters

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        users = user_turns(window)
        for table in (TRANSCRIPTS, ECHO_TARGETS):
            users = joined(users, table, shard.get(table.name))
        return users

    def checks(self) -> Iterable[Check]:
        limits = self.parameters
        return (
            _has(ECHO_TARGETS),
            _has_text(),
            _at_most("seconds", limits.max_seconds, lambda rows: rows["seconds"]),
            _at_most("wer", limits.max_wer, _of(TRANSCRIPTS, "wer_vs_reference")),
            _all_ended_by(list(limits.stop_reasons)),
            _all_at_least("mean_logprob", limits.min_mean_logprob, _of(ECHO_TARGETS, "mean_logprob")),
            _at_most("unit_error_rate", limits.max_unit_error_rate, _of(ECHO_TARGETS, "unit_error_rate")),
            _at_most("target_cer", limits.max_target_cer, _of(ECHO_TARGETS, "target_cer")),
        )

    def columns(self, rows: pa.RecordBatch) -> Mapping[str, pa.Array]:
        return {name: _of(ECHO_TARGETS, name)(rows) for name in ECHO_TARGETS.columns if name != KEY}
