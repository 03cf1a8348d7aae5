"""publish: join the tables into the training set of each stage of echo training, and apply the thresholds.

Thresholds are applied only here: earlier stages store all scores, so a new threshold recomputes nothing else. A row
that a threshold drops is a reject of class `filtered_…`; the funnel is counted from these.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import (
    ALIGNMENTS,
    ECHO,
    ECHO_TARGETS,
    KEY,
    MEASURES,
    S2T,
    SAMPLE_RATE,
    T2C,
    TRANSCRIPTS,
    UNITS,
    UTTERANCES,
    Table,
)
from echo_targets.schemas.tables.rules import rows_with
from echo_targets.schemas.tables.training import OF_REPLY, OF_TARGET
from echo_targets.transforms.base import FILTERED, Output, Reject, Transform
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.segments.borders import borders, longest_stretch
from echo_targets.transforms.stages.echo.turns import user_turns
from echo_targets.transforms.stages.measure import text_of
from echo_targets.transforms.stages.publish.filters import (
    FILES,
    Check,
    SpeechFilters,
    Value,
    at_least,
    at_most,
    beyond,
    of,
    speech_checks,
)

Role = Literal["user", "assistant", "narrator"]
LACKS = "lacks"
"""Column of the input: the first table in which the row should be and is not."""
FLAC_SHARE = 16
"""A second of FLAC takes at most this fraction (1/16) of the memory of a second that a model works on."""


class Publish(Transform):
    """A training set: the rows that pass every check. The first check that fails gives the reject's reason.

    A row that another stage of the job rejected fails. A stage that is not part of the job holds nothing back, unless
    its table is in `needs`.
    """

    needs: ClassVar[tuple[Table, ...]] = ()
    wants_audio = True
    window_rows: ClassVar[int] = 200  # small, because the rows' audio is copied
    parameters: SpeechFilters

    def fingerprint_parameters(self) -> dict[str, Any]:
        return self.parameters.model_dump(mode="json", exclude=set(FILES))

    def weight_digests(self) -> dict[str, str]:
        _ = self.speech_checks  # loads the files, so that a damaged one is reported before anything runs
        named = ((name, getattr(self.parameters, name)) for name in FILES)
        return {name: sha256_of(Path(path)) for name, path in named if path}

    @cached_property
    def speech_checks(self) -> list[Check]:
        """The checks that all training sets share."""
        return list(speech_checks(self.parameters))

    @abstractmethod
    def checks(self) -> Iterable[Check]:
        """Return the checks, for input rows that also have columns `text` and `seconds`."""

    @abstractmethod
    def columns(self, rows: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Return the columns of the training row that come from joined tables."""

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        rows = super().rows(self.turns(window), shard)
        return rows.append_column(LACKS, self.lacks(rows, shard))

    def lacks(self, rows: pa.Table, made: Container[str]) -> pa.Array:
        """Return, for each row, the first of the tables that the job has `made` or that the set needs it is not in."""
        found = pa.nulls(len(rows), pa.string())
        for table in reversed(self.reads[1:]):
            if table.name in made or table in self.needs:
                found = pc.if_else(pc.is_null(rows[table.name]), table.name, found)
        return found

    @abstractmethod
    def turns(self, window: pa.Table) -> pa.Table:
        """Return the utterances that may become rows."""

    def costs(self, rows: pa.Table) -> list[int]:
        """Return small costs: nothing is padded or encoded; a batch holds FLAC, a byte per sample, or no audio."""
        return [cost // FLAC_SHARE for cost in super().costs(rows)] if self.wants_audio else [0] * len(rows)

    def __call__(self, batch: pa.Table) -> Output:
        (rows,) = batch.combine_chunks().to_batches()
        rows = rows.append_column("text", text_of(rows)).append_column("seconds", _seconds(rows))
        passed = pa.repeat(True, len(rows))
        rejects: list[Reject] = []
        for check in (*map(_has, self.reads[1:]), *self.checks()):
            drops = pc.and_(passed, pc.fill_null(check.drops(rows), False))
            passed = pc.and_not(passed, drops)
            if drops.true_count:
                dropped = rows.filter(drops)
                says = zip(dropped[KEY].to_pylist(), check.says(dropped), strict=True)
                rejects += [Reject(key, f"{FILTERED}_{check.name}", message) for key, message in says]
        found = {name: rows[name] for name in rows.schema.names} | dict(self.columns(rows))
        training = pa.table([found[name] for name in self.writes.columns], schema=self.writes.schema)
        return Output(training.filter(passed) if rejects else training, rejects)


def _seconds(rows: pa.RecordBatch) -> pa.DoubleArray:
    return pc.divide(rows["num_samples"].cast(pa.float64()), float(SAMPLE_RATE))


def _of_roles(rows: pa.Table, roles: list[Role]) -> pa.Table:
    return rows.filter(pc.is_in(rows["role"].cast(pa.string()), value_set=pa.array(roles, pa.string())))


def _has(table: Table) -> Check:
    return Check(
        f"no_{table.name}",
        lambda rows: pc.equal(rows[LACKS], table.name),
        lambda rows: [f"has no row in {table.name}"] * len(rows),
    )


def _has_text() -> Check:
    return Check(
        "no_text",
        lambda rows: pc.equal(rows["text"], ""),
        lambda rows: ["has neither reference text nor transcript"] * len(rows),
    )


def _all_at_least(name: str, limit: float | None, lists: Value) -> Check:
    """Return a check like `at_least` for the smallest value of a row's list."""
    return Check(
        name,
        lambda rows: rows_with(lists(rows), beyond(pc.less, pc.list_flatten(lists(rows)), limit)),
        lambda rows: [f"{name} {min(found):g} is below min_{name}={limit:g}" for found in lists(rows).to_pylist()],
    )


def _has_target(origin: str) -> Check:
    target = of(ECHO_TARGETS, origin)
    return Check(
        "no_target",
        lambda rows: pc.is_null(target(rows)),
        lambda rows: [f"has no units of target={origin}"] * len(rows),
    )


def _all_ended_by(stop_reasons: list[str], reasons: Value) -> Check:
    allowed = pa.array(stop_reasons, pa.string())

    def others(rows: pa.RecordBatch) -> pa.BooleanArray:
        return rows_with(reasons(rows), pc.invert(pc.is_in(pc.list_flatten(reasons(rows)), value_set=allowed)))

    def says(rows: pa.RecordBatch) -> list[str]:
        ends = [sorted(set(found) - set(stop_reasons)) for found in reasons(rows).to_pylist()]
        return [f"a segment ended by {', '.join(found)}" for found in ends]

    return Check("stop_reason", others, says)


def replies_of(rows: pa.Table, everyone: pa.Table) -> pa.Array:
    """Return the text of the assistant's turn after each row's turn; of duplicate turns the last, as in echo."""
    spoken = pc.equal(everyone["role"].cast(pa.string()), "assistant")
    replies = everyone.filter(pc.and_(spoken, pc.not_equal(everyone["dialogue_id"], "")))
    replies = replies.take(pa.array(range(len(replies) - 1, -1, -1), pa.int64())).combine_chunks()
    answered = _turn(replies["dialogue_id"], pc.subtract(replies["turn"], 1)).combine_chunks()
    return replies["reference_text"].take(pc.index_in(_turn(rows["dialogue_id"], rows["turn"]), value_set=answered))


def _turn(dialogue: pa.Array, turn: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(turn.cast(pa.string()), dialogue, " ")


class S2TParameters(SpeechFilters):
    """Thresholds of training/s2t, in addition to those of every training set.

    Attributes:
        roles: roles whose turns are published.
        min_seconds: length of the audio.
        min_alignment_coverage: share of words that the alignment timed, not interpolated.
    """

    roles: list[Role] = ["user", "narrator"]
    min_seconds: float | None = 0.3
    min_alignment_coverage: float | None = 0.5


class PublishS2T(Publish):
    """Stage I: audio and its text, with the reply if the turn has one, and the dialogue's system text."""

    name: ClassVar[str] = "publish_s2t"
    version: ClassVar[int] = 7
    reads = (UTTERANCES, TRANSCRIPTS, MEASURES, ALIGNMENTS)
    writes = S2T
    Parameters = S2TParameters
    parameters: S2TParameters

    def turns(self, window: pa.Table) -> pa.Table:
        return _of_roles(window, self.parameters.roles)

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        rows = super().rows(window, shard)
        return rows.append_column("response_text", replies_of(rows, shard["utterances"]))

    def checks(self) -> Iterable[Check]:
        limits = self.parameters
        return (
            _has_text(),
            at_least("seconds", limits.min_seconds, lambda rows: rows["seconds"]),
            *self.speech_checks,
            at_least("alignment_coverage", limits.min_alignment_coverage, of(ALIGNMENTS, "coverage")),
        )

    def columns(self, rows: pa.RecordBatch) -> Mapping[str, pa.Array]:
        return {
            "wer_vs_reference": of(TRANSCRIPTS, "wer_vs_reference")(rows),
            "alignment_coverage": of(ALIGNMENTS, "coverage")(rows),
        }


class T2CParameters(SpeechFilters):
    """Thresholds of training/t2c, in addition to those of every training set.

    Attributes:
        roles: roles whose speech the decoder learns.
        max_seconds: disabled, since a decoder learns a reply in segments.
        max_segment_seconds: longest stretch of audio without a border to cut it at; a recording without a usable
            alignment is one stretch.
        min_chars_per_s, max_chars_per_s: as for every training set, but enabled: a text that is far too long or too
            short for its speech belongs to another recording.
    """

    roles: list[Role] = ["assistant", "narrator"]
    max_seconds: float | None = None
    max_segment_seconds: float | None = 30.0
    min_chars_per_s: float | None = 3.0
    max_chars_per_s: float | None = 40.0


class PublishT2C(Publish):
    """Stage II: a text, its units, and the borders where both can be cut into segments."""

    name: ClassVar[str] = "publish_t2c"
    version: ClassVar[int] = 5
    reads = (UTTERANCES, TRANSCRIPTS, MEASURES, UNITS, ALIGNMENTS)
    writes = T2C
    needs = (UNITS,)
    wants_audio = False
    window_rows = Transform.window_rows
    Parameters = T2CParameters
    parameters: T2CParameters

    def turns(self, window: pa.Table) -> pa.Table:
        return _of_roles(window, self.parameters.roles)

    def checks(self) -> Iterable[Check]:
        return (
            _has_text(),
            *self.speech_checks,
            at_most("segment_seconds", self.parameters.max_segment_seconds, longest_stretch),
        )

    def columns(self, rows: pa.RecordBatch) -> Mapping[str, pa.Array]:
        shared = [name for name in UNITS.columns if name in T2C.columns and name != KEY]
        return {name: of(UNITS, name)(rows) for name in shared} | {"borders": borders(rows)}


class EchoSetParameters(SpeechFilters):
    """Thresholds of training/echo, in addition to those of every training set, which apply to the user turn.

    Attributes:
        target: who says the units that are published; one of the echo stage's `targets`.
        min_mean_logprob: limit for the worst segment.
        max_unit_error_rate: error rate of the targets against the recorded units.
        max_target_cer: character error rate of the targets, read back as text, against the reply's text.
        stop_reasons: how every segment must have ended.
    """

    target: Literal["t2c", "echo", "recorded", "voice"] = "t2c"
    min_mean_logprob: float | None = -2.0
    max_unit_error_rate: float | None = None
    max_target_cer: float | None = None
    stop_reasons: list[Literal["end", "length", "repetition"]] = ["end"]


class PublishEcho(Publish):
    """Stage III: the user's audio, and the reply's tokens and segments, with units as one origin says them."""

    name: ClassVar[str] = "publish_echo"
    version: ClassVar[int] = 7
    reads = (UTTERANCES, TRANSCRIPTS, MEASURES, ECHO_TARGETS)
    writes = ECHO
    needs = (ECHO_TARGETS,)
    Parameters = EchoSetParameters
    parameters: EchoSetParameters

    def turns(self, window: pa.Table) -> pa.Table:
        return user_turns(window)

    def checks(self) -> Iterable[Check]:
        limits = self.parameters
        return (
            _has_text(),
            *self.speech_checks,
            _has_target(limits.target),
            _all_ended_by(list(limits.stop_reasons), self._said("stop_reason")),
            _all_at_least("mean_logprob", limits.min_mean_logprob, self._said("mean_logprob")),
            at_most("unit_error_rate", limits.max_unit_error_rate, self._said("unit_error_rate")),
            at_most("target_cer", limits.max_target_cer, self._said("target_cer")),
        )

    def columns(self, rows: pa.RecordBatch) -> Mapping[str, pa.Array]:
        return {
            **{name: of(ECHO_TARGETS, name)(rows) for name in OF_REPLY if name != KEY},
            **{column: self._said(field)(rows) for field, column in OF_TARGET.items()},
            "target": pa.repeat(self.parameters.target, len(rows)).dictionary_encode(),
        }

    def _said(self, field: str) -> Value:
        """Return a getter of a field of the target to publish."""
        return lambda rows: pc.struct_field(rows[ECHO_TARGETS.name], [self.parameters.target, field])
