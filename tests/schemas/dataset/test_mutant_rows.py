"""Rows broken in every way that we could think of, with drawn tables, rows and values: all found."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.tables.cuts import BORDERS
from tests.schemas.dataset.drawn import FEW, Draw, findings, shard
from tests.schemas.samples import Row, arrow, put_target, sample, samples

MUCH = 30_000


def below(limit: int) -> st.SearchStrategy[int]:
    return st.integers(limit - 100, limit - 1)


def no_share(low: float = 0.0, high: float = 1.0) -> st.SearchStrategy[float]:
    """Numbers outside a range, of which none is rounded into it as float32, and what is not a number."""
    odd = st.sampled_from([math.nan, math.inf, -math.inf])
    return odd | st.floats(1.001 * high + 0.01, 1e30) | st.floats(-1e30, low - 0.01)


def words(*known: str) -> st.SearchStrategy[str]:
    return st.text("abcdeWORD ", max_size=6).filter(lambda word: word not in known)


def put(column: str, values: st.SearchStrategy) -> Callable[[Draw, Row], None]:
    return lambda draw, row: row.update({column: draw(values)})


def one_of_list(column: str, values: st.SearchStrategy) -> Callable[[Draw, Row], None]:
    """One element of a list replaced."""

    def change(draw: Draw, row: Row) -> None:
        row[column] = list(row[column])
        row[column][draw(st.integers(0, len(row[column]) - 1))] = draw(values)

    return change


def inside(column: str, field: str, values: st.SearchStrategy, position: int | None = None) -> Callable:
    """One field of one struct of a list replaced."""

    def change(draw: Draw, row: Row) -> None:
        at = draw(st.integers(0, len(row[column]) - 1)) if position is None else position
        row[column][at][field] = draw(values)

    return change


def one_of_lists(column: str, values: st.SearchStrategy) -> Callable[[Draw, Row], None]:
    """One element of one of a list of lists replaced."""

    def change(draw: Draw, row: Row) -> None:
        row[column] = list(map(list, row[column]))
        of = draw(st.sampled_from(row[column]))
        of[draw(st.integers(0, len(of) - 1))] = draw(values)

    return change


def one_less(draw: Draw, row: Row, *columns: str) -> None:
    column = draw(st.sampled_from([name for name in columns if row[name]]))
    row[column] = row[column][:-1]


def repeat_a_unit(draw: Draw, row: Row) -> None:
    at = draw(st.integers(0, len(row["durations"]) - 1))
    row["units"] = [[*units[: at + 1], *units[at:]] for units in row["units"]]
    row["durations"] = [*row["durations"][:at], 1, *row["durations"][at:]]
    row["num_frames"] += 1


def one_unit_less(draw: Draw, row: Row) -> None:
    of = draw(st.integers(0, len(row["units"]) - 1))
    row["units"] = [units[:-1] if number == of else units for number, units in enumerate(row["units"])]


def another_number_of_codebooks(draw: Draw, row: Row) -> None:
    """Also where the lists that are left, or one of them twice, would keep every other rule."""
    row["units"] = row["units"] * 2 if draw(st.booleans()) else row["units"][:-1]


def words_of_several_codebooks(draw: Draw, row: Row) -> None:
    row |= {"num_codebooks": 2, "units": row["units"][:1] * 2, "unit_words": [draw(st.integers(0, 9))]}
    row["unit_language_id"] = "words"


def target(**changes: st.SearchStrategy) -> Callable[[Draw, Row], None]:
    """A target of one codebook with some fields changed."""
    return lambda draw, row: put_target(row, **{name: draw(values) for name, values in changes.items()}) and None


def half_a_dialogue(draw: Draw, row: Row) -> None:
    row[draw(st.sampled_from(["dialogue_id", "turn"]))] = None


def half_a_place(draw: Draw, row: Row) -> None:
    """Also one that would be a place if another column were there."""
    row |= {"recording_id": "call", "start_sample": 7, "end_sample": 7 + row["num_samples"]}
    for name in draw(st.sets(st.sampled_from(["recording_id", "start_sample", "end_sample"]), min_size=1, max_size=2)):
        row[name] = None


def place_of_another_length(draw: Draw, row: Row) -> None:
    other = draw(st.integers(3, MUCH)) * draw(st.sampled_from([-1, 1]))
    row |= {"recording_id": "call", "start_sample": 7, "end_sample": 7 + row["num_samples"] + other}


def cut_of_nothing(draw: Draw, row: Row) -> None:
    """A cut without length, where it breaks no other rule."""
    at = draw(st.sampled_from([100, 4_000, 5_000]))
    row["cuts"].insert(0, {**row["cuts"][2], "start_sample": at, "end_sample": at})


def half_a_unit_language(draw: Draw, row: Row) -> None:
    row |= {"unit_words": [1], "unit_language_id": "words"} | {draw(st.sampled_from(WORDS_AND_LANGUAGE)): None}


def half_a_time(draw: Draw, row: Row) -> None:
    row["items"][draw(st.sampled_from([0, 2]))][draw(st.sampled_from(["start_sample", "end_sample"]))] = None


def swap_frames(draw: Draw, row: Row) -> None:
    row["frames"] = draw(st.permutations(row["frames"]).filter(lambda frames: frames != sorted(frames)))


def say_more(draw: Draw, row: Row) -> None:
    row["response_text"] += draw(st.text("abc ", min_size=1, max_size=5))


def border(place: int, **changes: st.SearchStrategy) -> Callable[[Draw, Row], None]:
    """One of two borders changed."""

    def change(draw: Draw, row: Row) -> None:
        row["borders"] = [dict(each) for each in sample(T2C[0], 0)["borders"]]
        row["borders"][place] |= {name: draw(values) for name, values in changes.items()}

    return change


T2C = ("training/t2c",)
BLANKS = ["", " ", "\u00a0", "\u200b", " hello", "hello\n", "hello\u3000", "\ufeffhello"]
WORDS_AND_LANGUAGE = ["unit_words", "unit_language_id"]
UNITS, ECHO, SOUND = ("units", "training/t2c"), ("echo_targets", "training/echo"), ("training/s2t", "training/echo")
SEGMENTED = ("segment_char_ends", "denoising_cosine")
SHARES = st.sampled_from(["speech_share", "clipped_share", "unique_word_share", "repeated_share"])
OPINIONS = st.sampled_from(["dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808"])
FAILED = {"items": [], "coverage": 0.0, "status": "failed", "reason": "the audio is empty"}
IDS = ("prompt_template_id", "tokenizer_id", "echo_model_id")

ROWS: dict[str, tuple[tuple[str, ...], Callable[[Draw, Row], None]]] = {
    "an empty key": (("entries", "utterances", "rejects"), put(KEY, st.just(""))),
    "a negative estimate": (("entries",), put("seconds", no_share(0, 1e9))),
    "a negative size": (("entries",), put("size", below(0))),
    "no source": (("entries",), put("source", st.just(""))),
    "an error without a class": (("entries",), put("error", st.text(max_size=5))),
    "an unknown role": (("utterances",), put("role", words("user", "assistant", "narrator"))),
    "no sampling rate": (("utterances",), put("sampling_rate", below(1))),
    "no samples": (("utterances", *SOUND), put("num_samples", below(1))),
    "no such channel": (("utterances",), put("channel", st.integers(-128, -2))),
    "audio without a name": (("utterances",), put("audio", st.just({"bytes": b"fLaC", "path": None}))),
    "half a dialogue": (("utterances",), half_a_dialogue),
    "half a place in a recording": (("utterances",), half_a_place),
    "another length in its recording": (("utterances",), place_of_another_length),
    "a cut before the last one ends": (("cuts",), inside("cuts", "start_sample", st.integers(100, 5_999), 3)),
    "a cut too short": (("cuts",), inside("cuts", "end_sample", st.integers(5_001, 5_999), 2)),
    "a gap too long": (("cuts",), inside("gaps", "end_sample", st.integers(3_901, 99_999), 0)),
    "a gap backwards": (("cuts",), inside("gaps", "end_sample", st.integers(-9, 99), 1)),
    "a gap of another channel": (("cuts",), inside("gaps", "channel", st.integers(2, 127))),
    "a gap too few": (("cuts",), lambda draw, row: row["gaps"].pop(draw(st.integers(0, 4))) and None),
    "a cut too few": (("cuts",), lambda draw, row: row["cuts"].pop(draw(st.integers(0, 3))) and None),
    "a cut of nothing": (("cuts",), cut_of_nothing),
    "a recording that goes on": (("cuts",), put("num_samples", st.integers(21_000, 2**40))),
    "nothing of a recording": (("cuts",), lambda draw, row: row.update(cuts=[], gaps=[])),
    "turns out of order": (("cuts",), inside("cuts", "turn", st.integers(-9, 1), 3)),
    "an overlap that is none": (("cuts",), inside("cuts", "overlap", no_share())),
    "a level that is none": (("cuts",), inside("cuts", "level_dbfs", no_share(-200, 10))),
    "an unknown role of a cut": (("cuts",), inside("cuts", "role", words("user", "assistant", "narrator"))),
    "an unknown border": (("cuts",), inside("cuts", "border", words(*BORDERS))),
    "a cut's text with blanks around it": (("cuts",), inside("cuts", "text", st.sampled_from(BLANKS), 1)),
    "a digest of no text": (("entries",), lambda draw, row: row.update(timed_text=None, timed_text_sha256="ab")),
    "an unknown gap": (("cuts",), inside("gaps", "why", words("no_speech", "cross_talk"))),
    "a recording of no channels": (("cuts",), put("num_channels", below(1))),
    "a recording of no rate": (("cuts",), put("sampling_rate", below(1))),
    "a reference with blanks around it": (("utterances",), put("reference_text", st.sampled_from(BLANKS))),
    "a system text with blanks around it": (
        ("entries", "utterances", "training/s2t", *ECHO),
        put("system_text", st.sampled_from(BLANKS)),
    ),
    "a turn before the first": (("utterances", *ECHO), put("turn", below(0))),
    "a probability that is none": (("transcripts",), put("language_prob", no_share())),
    "more speech covered than there is": (("transcripts",), put("speech_covered", no_share())),
    "an error rate that is none": (("transcripts", "training/s2t"), put("wer_vs_reference", no_share(0, 1e4))),
    "speech at no speed": (("transcripts", "measures"), put("chars_per_s", no_share(0, 1e5))),
    "segments that overlap": (("transcripts",), inside("segments", "start_sample", st.integers(0, 7_999), 1)),
    "a segment backwards": (("transcripts",), inside("segments", "end_sample", st.integers(-9, 7_999), 1)),
    "a segment without text": (("transcripts",), inside("segments", "text", st.just(""), 1)),
    "a segment without time": (("transcripts",), inside("segments", "end_sample", st.just(8_000), 1)),
    "a segment before the audio": (("transcripts",), inside("segments", "start_sample", below(0), 0)),
    "silence that is no probability": (("transcripts",), inside("segments", "no_speech_prob", no_share())),
    "a logarithm above 0": (("transcripts",), inside("segments", "avg_logprob", no_share(-1e4, 0))),
    "a ratio that is none": (("transcripts",), inside("segments", "compression_ratio", no_share(0, 10_001))),
    "a loudness below the gate": (("measures",), put("loudness_lufs", no_share(-70, 30))),
    "a silence before it starts": (("measures",), put("longest_silence_samples", below(0))),
    "a share of words that is none": (("measures",), lambda draw, row: row.update({draw(SHARES): draw(no_share())})),
    "a frequency above half the sampling rate": (("measures",), put("bandwidth_hz", no_share(0, 8000))),
    "a noise beyond the estimate": (("measures",), put("snr_db", no_share(-10, 40))),
    "an opinion that nobody has": (
        ("measures",),
        lambda draw, row: row.update({draw(OPINIONS): draw(no_share(0, 6))}),
    ),
    "a voice of another length than 1": (
        ("measures",),
        put("speaker_embedding", st.sampled_from([[], [0.5, 0.5], [1.0, 0.2], [1.5], [math.nan], [0.0, 0.0]])),
    ),
    "a word of no letters": (("measures",), put("longest_word", below(1))),
    "a longest word that is shorter": (("measures",), put("longest_word_excess", no_share(0, 1e9))),
    "an unknown tier": (("alignments",), put("tier", words("word", "phone"))),
    "an unknown source of text": (("alignments",), put("text_source", words("reference", "transcript"))),
    "an unknown status": (("alignments",), put("status", words("ok", "partial", "failed"))),
    "a share that is none": (("alignments",), put("coverage", no_share())),
    "another share that is none": (("training/s2t",), put("alignment_coverage", no_share())),
    "words that overlap": (("alignments",), inside("items", "start_sample", st.integers(0, 6_999), 2)),
    "a word backwards": (("alignments",), inside("items", "end_sample", st.integers(-9, 99), 0)),
    "letters backwards": (("alignments",), inside("items", "char_start", st.integers(-9, 4), 1)),
    "half a time": (("alignments",), half_a_time),
    "a word of no length": (("alignments",), inside("items", "end_sample", st.just(100), 0)),
    "a word of no characters": (("alignments",), inside("items", "char_end", st.just(0), 0)),
    "a failure without a reason": (("alignments",), lambda draw, row: row.update(FAILED, reason=None)),
    "a failure with words": (("alignments",), lambda draw, row: row.update(FAILED, items=row["items"])),
    "a reason where nothing failed": (("alignments",), put("reason", st.text())),
    "a guess that is ok": (("alignments",), put("status", st.just("ok"))),
    "an unknown unit of errors": (("transcripts",), put("wer_unit", words("word", "character", "mixed"))),
    "an error rate of nothing": (("transcripts",), put("wer_unit", st.none())),
    "a score that is none": (("alignments",), inside("items", "score", no_share(), 0)),
    "a unit above the codebook": (UNITS, one_of_lists("units", st.integers(100, MUCH))),
    "a unit below 0": (UNITS, one_of_lists("units", st.integers(-MUCH, -1))),
    "a unit twice": (UNITS, repeat_a_unit),
    "a duration too few": (UNITS, lambda draw, row: one_less(draw, row, "durations")),
    "a unit of a codebook too few": (UNITS, one_unit_less),
    "a codebook more, or less": (UNITS, another_number_of_codebooks),
    "no codebooks": (UNITS, put("num_codebooks", st.integers(-128, 0))),
    "no sampling rate of the units": (("units",), put("sampling_rate", below(1))),
    "words of several codebooks": (UNITS, words_of_several_codebooks),
    "a unit of no duration": (UNITS, one_of_list("durations", st.just(0))),
    "frames that are none of the durations'": (UNITS, put("num_frames", st.integers(-9, 49) | st.integers(70, MUCH))),
    "a codebook of no size": (UNITS, put("codebook_size", below(1) | st.integers(65_537, 2**31 - 1))),
    "a codebook without a name": (UNITS, put("codebook_id", st.just(""))),
    "words of no unit language": (UNITS, half_a_unit_language),
    "a word below 0": (UNITS, lambda draw, row: row.update(unit_words=[draw(below(0))], unit_language_id="words")),
    "no units": (
        ("training/t2c",),
        lambda draw, row: row.update(units=[[] for _ in row["units"]], durations=[], num_frames=0),
    ),
    "borders that overlap in the text": (T2C, border(1, char_start=st.integers(-9, 6))),
    "a border backwards in the text": (T2C, border(0, char_start=st.integers(8, 99))),
    "a border before the text": (T2C, border(0, char_start=st.integers(-9, 0))),
    "a border after the text": (T2C, border(1, char_end=st.integers(16, 99))),
    "a border before the units": (T2C, border(0, frame=st.integers(-9, 0))),
    "a border after the units": (T2C, border(1, frame=st.integers(100, MUCH))),
    "a border without units before it": (T2C, border(1, frame=st.just(1))),
    "no hop": (("units", "features"), put("hop_samples", below(1))),
    "no such layer": (("units", "features"), put("layer", st.integers(-128, -1))),
    "frames out of order": (("features",), swap_frames),
    "a frame too few": (("features",), lambda draw, row: one_less(draw, row, "frames", "features")),
    "another width": (("features",), put("width", st.integers(-9, 9).filter(lambda width: width != 2))),
    "a feature that is no number": (("features",), one_of_list("features", st.sampled_from([math.nan, math.inf]))),
    "words out of order": (("unit_counts",), lambda draw, row: row.update(words=row["words"][::-1])),
    "a word twice": (("unit_counts",), lambda draw, row: row.update(words=[row["words"][0]] * 3)),
    "a count too few": (("unit_counts",), lambda draw, row: one_less(draw, row, "words", "counts")),
    "a word that does not occur": (("unit_counts",), one_of_list("counts", below(1))),
    "counts of no utterance": (("unit_counts",), put("utterances", below(1))),
    "an encoder without a name": (("features",), put("encoder", st.just(""))),
    "no reply": (ECHO, put("response_text", st.just(""))),
    "a longer reply": (ECHO, say_more),
    "an unknown source of the reply": (ECHO, put("response_source", words("reference", "generated"))),
    "an unknown end": (ECHO, target(stop_reason=words("end", "length", "repetition").map(lambda end: ["end", end]))),
    "a token below 0": (ECHO, lambda draw, row: one_of_list(draw(st.sampled_from(TOKENS)), below(0))(draw, row)),
    "a token too few": (ECHO, lambda draw, row: one_less(draw, row, "response_token_ids", "sub_lengths")),
    "a segment of no tokens": (ECHO, put("sub_lengths", st.integers(4, 50).map(lambda count: [4 - count, count]))),
    "a segment too few": (ECHO, lambda draw, row: one_less(draw, row, *SEGMENTED)),
    "segments that go back": (ECHO, put("segment_char_ends", st.integers(11, 99).map(lambda end: [end, 11]))),
    "an unknown origin": (("training/echo",), put("target", words("t2c", "echo", "recorded", "voice"))),
    "a target's unit twice": (ECHO, target(units=st.integers(0, 99).map(lambda unit: [[[1, unit, unit]], [[7]]]))),
    "a target's unit below 0": (ECHO, target(units=below(0).map(lambda unit: [[[1, unit, 1]], [[7]]]))),
    "a target's unit above the codebook": (
        ECHO,
        target(units=st.integers(100, MUCH).map(lambda u: [[[1, u, 1]], [[7]]])),
    ),
    "a target's segment too few": (ECHO, target(units=st.just([[[1, 2, 1]]]))),
    "a target's codebook too few": (ECHO, target(units=st.just([[[1, 2, 1]], []]))),
    "a target's unit without a duration": (ECHO, target(durations=st.just([[1, 4], [3]]))),
    "a target's unit of no duration": (ECHO, target(durations=below(1).map(lambda frames: [[1, frames, 2], [3]]))),
    "a target of no rate": (ECHO, target(hop_samples=below(1))),
    "a target's word below 0": (ECHO, target(unit_words=below(0).map(lambda word: [[], [word]]))),
    "a likelihood above 1": (ECHO, target(mean_logprob=no_share(-1e4, 0).map(lambda value: [value, -1.0]))),
    "a cosine that is none": (ECHO, one_of_list("denoising_cosine", no_share(-1.001, 1.001))),
    "an agreement that is none": (ECHO, put("hidden_text_agreement", no_share())),
    "a unit error rate that is none": (ECHO, target(unit_error_rate=no_share(0, 1e4))),
    "a character error rate that is none": (ECHO, target(target_cer=no_share(0, 1e4))),
    "a shift back": (ECHO, put("assistant_after_audio_shift", below(0))),
    "a model without a name": (ECHO, lambda draw, row: row.update({draw(st.sampled_from(IDS)): ""})),
    "no text": (("training/s2t", "training/t2c", "training/echo"), put("text", st.just(""))),
    "never tried": (("rejects",), put("attempts", st.integers(-128, 0))),
    "no reason": (("rejects",), lambda draw, row: row.update({draw(st.sampled_from(REASONS)): ""})),
}
TOKENS = ("response_token_ids", "asr_target_ids")
REASONS = ("stage", "error_class", "message")


@pytest.mark.parametrize("mutant", ROWS)
@FEW
@given(data=st.data())
def test_a_broken_row_is_found(mutant: str, data: st.DataObject) -> None:
    tables, change = ROWS[mutant]
    name = data.draw(st.sampled_from(tables))
    rows = samples(name, data.draw(st.integers(1, 4)), data.draw(st.integers(0, 99)))
    row = rows[data.draw(st.integers(0, len(rows) - 1))]
    change(data.draw, row)
    found = findings(shard(name, arrow(name, rows)), name)
    assert found and {finding.row for finding in found} == {row[KEY] or ""}
    assert all(finding.value and "\n" not in str(finding) for finding in found)


@settings(max_examples=40)
@given(data=st.data())
def test_a_valid_shard_passes(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TABLES)))
    rows = samples(name, data.draw(st.integers(0, 4)), data.draw(st.integers(0, 10**6)))
    place = {"recording_id", "start_sample", "end_sample"} if name == "utterances" else set()
    paired = place | {
        "dialogue_id",
        "turn",
        "error",
        "error_class",
        "timed_text",
        "timed_text_sha256",
        "wer_unit",
        "wer_vs_reference",
        *WORDS_AND_LANGUAGE,
    }
    for field in TABLES[name].schema:
        if field.nullable and field.name not in paired:
            for row in rows:
                row[field.name] = data.draw(st.sampled_from([row[field.name], None]))
    for row in rows if name == "utterances" and data.draw(st.booleans()) else ():
        start = data.draw(st.integers(0, 2**40))
        end = start + row["num_samples"] + data.draw(st.integers(-2, 2))
        row |= {"recording_id": "call", "start_sample": start, "end_sample": end}
    for row in rows if name in UNITS else ():
        size = data.draw(st.integers(1, 65_536))
        codebooks = [st.integers(0, min(size - 1, data.draw(st.integers(1, size)))) for _ in row["units"]]
        frames = data.draw(st.lists(st.tuples(*codebooks), min_size=1, max_size=30))
        runs = [frame for frame, before in zip(frames, [None, *frames], strict=False) if frame != before]
        row["units"] = list(zip(*runs, strict=True))
        row["durations"] = [data.draw(st.integers(1, 1_000_000)) for _ in runs]
        row |= {"codebook_size": size, "num_frames": sum(row["durations"])}
        if "borders" in row:
            row["borders"] = [each for each in row["borders"] if each["frame"] < row["num_frames"]]
    assert findings(shard(name, arrow(name, rows)), name) == []
