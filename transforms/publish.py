"""publish: the tables joined into what each stage of echo training reads, and the thresholds applied.

Thresholds live here alone: scores are stored upstream and never thrown away, so a new threshold recomputes nothing
else. A row that a threshold holds back is a reject of class `filtered_…`: the funnel is counted from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from schemas import ALIGNMENTS, ECHO, ECHO_TARGETS, KEY, S2T, SAMPLE_RATE, T2C, TRANSCRIPTS, UNITS, UTTERANCES, Table
from transforms.base import FILTERED, Output, Parameters, Reject, Transform, joined, table_of
from transforms.echo import user_turns

Row = dict[str, Any]
Check = tuple[str, Callable[[Row], str | None]]
Role = Literal["user", "assistant", "narrator"]


class Publish(Transform):
    """A training set: rows that pass every check, in the order of the checks; the first that fails gives the reason."""

    wants_audio: ClassVar[bool] = True

    def checks(self) -> Iterable[Check]:
        """Names of the checks, and what each says of a row that it holds back."""
        return ()

    def columns(self, row: Row) -> Row:
        """The training row."""
        return {}

    def __call__(self, batch: pa.Table) -> Output:
        rows, rejects = [], []
        for row in batch.to_pylist():
            held = next(((name, why) for name, check in self.checks() if (why := check(row))), None)
            if held:
                rejects.append(Reject(row[KEY], f"{FILTERED}_{held[0]}", held[1]))
            else:
                rows.append(self.columns(row))
        return Output(table_of(rows, self.writes), rejects)


def _of_roles(rows: pa.Table, roles: list[Role]) -> pa.Table:
    return rows.filter(pc.is_in(rows["role"].cast(pa.string()), value_set=pa.array(roles, pa.string())))


def _has(table: Table) -> Check:
    stage = table.name
    return f"no_{stage}", lambda row: None if row[stage] is not None else f"has no row in {stage}"


def _at_most(name: str, limit: float | None, value: Callable[[Row], float | None]) -> Check:
    def check(row: Row) -> str | None:
        found = value(row)
        beyond = limit is not None and found is not None and found > limit
        return f"{name} {found:g} is above max_{name}={limit:g}" if beyond else None

    return name, check


def _at_least(name: str, limit: float | None, value: Callable[[Row], float | None]) -> Check:
    def check(row: Row) -> str | None:
        found = value(row)
        beyond = limit is not None and found is not None and found < limit
        return f"{name} {found:g} is below min_{name}={limit:g}" if beyond else None

    return name, check


def _seconds(row: Row) -> float:
    return float(row["num_samples"] / SAMPLE_RATE)


def _of(table: str, column: str) -> Callable[[Row], Any]:
    return lambda row: row[table][column] if row[table] else None


def _text(row: Row) -> str:
    transcript = row["transcripts"]
    return (row["reference_text"] or (transcript["text"] if transcript else "")).strip()


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
    version: ClassVar[int] = 1
    reads = (UTTERANCES, TRANSCRIPTS, ALIGNMENTS)
    writes = S2T
    Parameters = S2TParameters
    parameters: S2TParameters

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        everyone = shard["utterances"].select(["dialogue_id", "turn", "role", "reference_text"]).to_pylist()
        replies = {
            (row["dialogue_id"], row["turn"] - 1): row["reference_text"]
            for row in everyone
            if row["role"] == "assistant" and row["dialogue_id"]
        }
        rows = super().rows(_of_roles(window, self.parameters.roles), shard)
        answered = [
            replies.get((row["dialogue_id"], row["turn"])) for row in rows.select(["dialogue_id", "turn"]).to_pylist()
        ]
        return rows.append_column("response_text", pa.array(answered, pa.string()))

    def checks(self) -> Iterable[Check]:
        limits = self.parameters
        return (
            ("no_text", lambda row: None if _text(row) else "has neither reference text nor transcript"),
            _at_least("seconds", limits.min_seconds, _seconds),
            _at_most("seconds", limits.max_seconds, _seconds),
            _at_most("wer", limits.max_wer, _of("transcripts", "wer_vs_reference")),
            _at_least("alignment_coverage", limits.min_alignment_coverage, _of("alignments", "coverage")),
        )

    def columns(self, row: Row) -> Row:
        same = ("corpus", "language", "speaker_id", "audio", "num_samples", "response_text")
        return {
            KEY: row[KEY],
            **{name: row[name] for name in same},
            "text": _text(row),
            "wer_vs_reference": _of("transcripts", "wer_vs_reference")(row),
            "alignment_coverage": _of("alignments", "coverage")(row),
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
    version: ClassVar[int] = 1
    reads = (UTTERANCES, TRANSCRIPTS, UNITS)
    writes = T2C
    wants_audio = False
    Parameters = T2CParameters
    parameters: T2CParameters

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        return super().rows(_of_roles(window, self.parameters.roles), shard)

    def checks(self) -> Iterable[Check]:
        limits = self.parameters

        def rate(row: Row) -> float:
            return len(_text(row)) / _seconds(row)

        return (
            _has(UNITS),
            ("no_text", lambda row: None if _text(row) else "has neither reference text nor transcript"),
            _at_most("seconds", limits.max_seconds, _seconds),
            _at_most("wer", limits.max_wer, _of("transcripts", "wer_vs_reference")),
            _at_least("chars_per_s", limits.min_chars_per_s, rate),
            _at_most("chars_per_s", limits.max_chars_per_s, rate),
        )

    def columns(self, row: Row) -> Row:
        same = {name: row[name] for name in ("corpus", "split", "language", "speaker_id")}
        units = {name: row["units"][name] for name in UNITS.columns if name in T2C.columns}
        return units | same | {KEY: row[KEY], "text": _text(row)}


class EchoSetParameters(Parameters):
    """Thresholds of training/echo.

    Attributes:
        max_seconds: length of the user's audio.
        min_mean_logprob: of the worst segment.
        max_unit_error_rate: of the targets against the recorded units.
        max_wer: of the user's transcript against its reference.
        stop_reasons: how every segment must have ended.
    """

    max_seconds: float | None = 30.0
    min_mean_logprob: float | None = -2.0
    max_unit_error_rate: float | None = None
    max_wer: float | None = 0.5
    stop_reasons: list[Literal["end", "length", "repetition"]] = ["end"]


class PublishEcho(Publish):
    """Stage III: the user's audio, the reply's tokens and segments, and the units of each."""

    name: ClassVar[str] = "publish_echo"
    version: ClassVar[int] = 1
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

        def worst(row: Row) -> float:
            return float(min(row["echo_targets"]["mean_logprob"]))

        def stopped(row: Row) -> str | None:
            others = set(row["echo_targets"]["stop_reason"]) - set(limits.stop_reasons)
            return f"a segment ended by {', '.join(sorted(others))}" if others else None

        return (
            _has(ECHO_TARGETS),
            ("no_text", lambda row: None if _text(row) else "has neither reference text nor transcript"),
            _at_most("seconds", limits.max_seconds, _seconds),
            _at_most("wer", limits.max_wer, _of("transcripts", "wer_vs_reference")),
            ("stop_reason", stopped),
            _at_least("mean_logprob", limits.min_mean_logprob, worst),
            _at_most("unit_error_rate", limits.max_unit_error_rate, _of("echo_targets", "unit_error_rate")),
        )

    def columns(self, row: Row) -> Row:
        same = {name: row[name] for name in ("corpus", "split", "language", "audio", "num_samples")}
        return {name: row["echo_targets"][name] for name in ECHO_TARGETS.columns} | same | {"text": _text(row)}
