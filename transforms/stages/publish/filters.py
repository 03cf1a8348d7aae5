"""Filters that drop rows: checks on whole columns, and the thresholds that all training sets share.

docs/FILTERS.md says where each comes from, and how much real speech it drops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from echo_targets.schemas import ECHO_TARGETS, KEY, MEASURES, SAMPLE_RATE, TRANSCRIPTS, Table
from echo_targets.schemas.tables.base import Mask
from echo_targets.schemas.tables.rules import rows_with
from echo_targets.transforms.base import Parameters
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.stages.measure import chars_per_s
from echo_targets.transforms.stages.publish.duplicates import Likeness, held_out, load_duplicates
from echo_targets.transforms.stages.publish.evaluation import EvaluationTexts
from echo_targets.transforms.stages.publish.fences import RateFences
from echo_targets.transforms.stages.publish.voices import SpeakerSimilarities

Flag = Literal["empty", "fallback", "low_logprob", "no_speech", "other_language", "repetition", "uncovered_speech"]
Value = Callable[[pa.RecordBatch], pa.Array]
SENTENCE_ENDS = ".?!。．？！｡؟۔।॥።။។"


@dataclass(frozen=True)
class Check:
    """A reason to drop rows, checked on whole columns: only dropped rows become Python objects.

    Attributes:
        name: the reject's class, after `filtered_`.
        drops: returns a mask of the rows to drop (null keeps the row).
        says: returns a message for each dropped row; it is given only those rows.
    """

    name: str
    drops: Callable[[pa.RecordBatch], Mask]
    says: Callable[[pa.RecordBatch], Iterable[str]]


class SpeechFilters(Parameters):
    """Thresholds of every training set. A row without a score passes its threshold; null disables a threshold.

    Attributes:
        max_seconds: length of the audio.
        max_wer: of the transcript against the reference.
        drop_flags: a transcript with one of these flags is dropped. `uncovered_speech`: it lacks a second or more of
            the speech, though its scores may be good. `other_language`: Whisper was set to another language.
        min_speech_covered: share of the speech inside the transcript's segments.
        min_chars_per_s, max_chars_per_s: speech rate of the text.
        rate_fences: a file of `echo-targets fit-fences`; a rate must lie inside the fences of its corpus and
            language. Corpora that the file does not list are not filtered.
        languages: Whisper's codes of the languages that it may detect.
        same_language: True requires the detected language to be the corpus's own (`en` matches `en-US`).
        min_language_prob: probability of the detected language. None of these three applies if Whisper was given the
            language.
        min_speech_share: share of the audio in which somebody speaks.
        max_silence_s: longest stretch without speech.
        min_loudness_lufs, max_loudness_lufs: integrated loudness.
        min_bandwidth_hz: highest frequency with sound.
        max_overlap: share of an utterance cut from a recording in which others speak.
        max_clipped_share: share of samples on a plateau at the recording's extremes.
        min_snr_db: estimated signal-to-noise ratio.
        min_dnsmos_sig, min_dnsmos_bak, min_dnsmos_ovrl, min_dnsmos_p808: predicted mean opinion scores.
        min_unique_word_share: unique words divided by words of the text.
        max_longest_word: characters of the text's longest word.
        max_longest_word_excess: (longest word's characters / second longest's) - 1.
        phrases: a file of texts that Whisper hallucinates, one per line, each optionally followed by a count, as in
            Granary's lists. A row without a reference is dropped if its transcript is only such a text.
        max_repeated_share: share of the text in five-word runs that occur more than once.
        evaluation_texts: a file of texts, one per line or as JSON lines with a key `text`. A row that shares a run of
            13 words with one of them is dropped, or all words of a text of 8 to 12. The reply counts too. Rows of
            held-out splits stay.
        duplicates: a file of `echo-targets fit-duplicates`.
        drop_duplicates: what must be alike for the file's rows to be dropped.
        speaker_similarities: a file of `echo-targets fit-speakers`.
        min_speaker_similarity: similarity of the voice to the speaker's other utterances, in that file.
    """

    max_seconds: float | None = 30.0
    max_wer: float | None = 0.5
    drop_flags: list[Flag] = ["uncovered_speech", "other_language"]
    min_speech_covered: float | None = None
    min_chars_per_s: float | None = None
    max_chars_per_s: float | None = None
    rate_fences: str | None = None
    languages: list[str] | None = None
    same_language: bool = False
    min_language_prob: float | None = 0.7
    min_speech_share: float | None = 0.1
    max_silence_s: float | None = None
    min_loudness_lufs: float | None = -50.0
    max_loudness_lufs: float | None = None
    min_bandwidth_hz: float | None = None
    max_overlap: float | None = None
    max_clipped_share: float | None = None
    min_snr_db: float | None = None
    min_dnsmos_sig: float | None = None
    min_dnsmos_bak: float | None = None
    min_dnsmos_ovrl: float | None = None
    min_dnsmos_p808: float | None = None
    min_unique_word_share: float | None = 0.4
    max_longest_word: int | None = 24
    max_longest_word_excess: float | None = None
    phrases: str | None = None
    max_repeated_share: float | None = 0.3
    evaluation_texts: str | None = None
    duplicates: str | None = None
    drop_duplicates: list[Likeness] = ["audio"]
    speaker_similarities: str | None = None
    min_speaker_similarity: float | None = None

    @model_validator(mode="after")
    def _has_similarities(self) -> Self:
        if self.min_speaker_similarity is not None and self.speaker_similarities is None:
            raise ValueError("min_speaker_similarity needs speaker_similarities, a file of `echo-targets fit-speakers`")
        return self


FILES = ("rate_fences", "phrases", "evaluation_texts", "duplicates", "speaker_similarities")
"""Parameters that name files. In a fingerprint, the files' digests stand for them."""


def speech_checks(limits: SpeechFilters) -> Iterator[Check]:
    """Yield the checks of the shared thresholds, for rows that also have columns `text` and `seconds`.

    Raises:
        DuplicatesError, FencesError, ModelError, SimilaritiesError: a file can't be used.
    """
    yield at_most("seconds", limits.max_seconds, lambda rows: rows["seconds"])
    yield at_most("wer", limits.max_wer, of(TRANSCRIPTS, "wer_vs_reference"))
    yield from map(_flagged, limits.drop_flags)
    yield at_least("speech_covered", limits.min_speech_covered, of(TRANSCRIPTS, "speech_covered"))
    yield at_least("chars_per_s", limits.min_chars_per_s, rate)
    yield at_most("chars_per_s", limits.max_chars_per_s, rate)
    if limits.rate_fences:
        yield _inside(RateFences.load(Path(limits.rate_fences)))
    if limits.languages is not None:
        yield _one_of(limits.languages)
    if limits.same_language:
        yield _as_the_corpus_says()
    yield at_least("language_prob", limits.min_language_prob, of(TRANSCRIPTS, "language_prob"))
    yield at_least("speech_share", limits.min_speech_share, of(MEASURES, "speech_share"))
    yield at_most("silence_s", limits.max_silence_s, _silence)
    yield at_least("loudness_lufs", limits.min_loudness_lufs, of(MEASURES, "loudness_lufs"))
    yield at_most("loudness_lufs", limits.max_loudness_lufs, of(MEASURES, "loudness_lufs"))
    yield at_least("bandwidth_hz", limits.min_bandwidth_hz, of(MEASURES, "bandwidth_hz"))
    yield at_most("overlap", limits.max_overlap, lambda rows: rows["overlap"])
    yield at_most("clipped_share", limits.max_clipped_share, of(MEASURES, "clipped_share"))
    yield at_least("snr_db", limits.min_snr_db, of(MEASURES, "snr_db"))
    yield at_least("dnsmos_sig", limits.min_dnsmos_sig, of(MEASURES, "dnsmos_sig"))
    yield at_least("dnsmos_bak", limits.min_dnsmos_bak, of(MEASURES, "dnsmos_bak"))
    yield at_least("dnsmos_ovrl", limits.min_dnsmos_ovrl, of(MEASURES, "dnsmos_ovrl"))
    yield at_least("dnsmos_p808", limits.min_dnsmos_p808, of(MEASURES, "dnsmos_p808"))
    yield at_least("unique_word_share", limits.min_unique_word_share, of(MEASURES, "unique_word_share"))
    yield at_most("longest_word", limits.max_longest_word, of(MEASURES, "longest_word"))
    yield at_most("longest_word_excess", limits.max_longest_word_excess, of(MEASURES, "longest_word_excess"))
    if limits.phrases:
        yield _no_phrase(Path(limits.phrases))
    yield at_most("repeated_share", limits.max_repeated_share, of(MEASURES, "repeated_share"))
    if limits.evaluation_texts:
        yield _not_evaluated(EvaluationTexts.load(Path(limits.evaluation_texts)))
    if limits.duplicates:
        yield _no_duplicate(Path(limits.duplicates), limits.drop_duplicates)
    if limits.speaker_similarities:
        similarities = SpeakerSimilarities.load(Path(limits.speaker_similarities))
        yield at_least("speaker_similarity", limits.min_speaker_similarity, lambda rows: similarities.of(rows[KEY]))


def of(table: Table, column: str) -> Value:
    """Return a getter of a joined table's column; null where nothing was joined."""
    return lambda rows: pc.struct_field(rows[table.name], column)


def rate(rows: pa.RecordBatch) -> pa.DoubleArray:
    """Return the text's characters per second."""
    return chars_per_s(rows["text"], rows["num_samples"])


def beyond(compare: Callable[..., Mask], scores: pa.Array, limit: float | None) -> Mask:
    """Return a mask of the scores beyond a limit, in the scores' precision: the float32 nearest to 0.3 exceeds 0.3."""
    return compare(scores, pa.scalar(limit, scores.type))


def at_most(name: str, limit: float | None, value: Value) -> Check:
    """Return a check that a score is not above a limit; None disables it."""
    return Check(
        name,
        lambda rows: beyond(pc.greater, value(rows), limit),
        lambda rows: [f"{name} {found:g} is above max_{name}={limit:g}" for found in value(rows).to_pylist()],
    )


def at_least(name: str, limit: float | None, value: Value) -> Check:
    """Return a check that a score is not below a limit; None disables it."""
    return Check(
        name,
        lambda rows: beyond(pc.less, value(rows), limit),
        lambda rows: [f"{name} {found:g} is below min_{name}={limit:g}" for found in value(rows).to_pylist()],
    )


def _flagged(flag: Flag) -> Check:
    flags = of(TRANSCRIPTS, "flags")

    def drops(rows: pa.RecordBatch) -> Mask:
        return rows_with(flags(rows), pc.equal(pc.list_flatten(flags(rows)), flag))

    return Check(flag, drops, lambda rows: [f"its transcript is flagged {flag} (drop_flags)"] * len(rows))


def _silence(rows: pa.RecordBatch) -> pa.DoubleArray:
    samples = of(MEASURES, "longest_silence_samples")(rows)
    return pc.divide(samples.cast(pa.float64()), float(SAMPLE_RATE))


def _inside(known: RateFences) -> Check:
    groups = pa.array([f"{fence.corpus}\n{fence.language}" for fence in known.fences], pa.string())

    def fences_of(rows: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        names = [rows[name].cast(pa.string()) for name in ("corpus", "language")]
        place = pc.index_in(pc.binary_join_element_wise(*names, "\n"), value_set=groups)
        low, high = ([getattr(fence, side) for fence in known.fences] for side in ("low", "high"))
        return pa.array(low, pa.float64()).take(place), pa.array(high, pa.float64()).take(place)

    def drops(rows: pa.RecordBatch) -> Mask:
        low, high = fences_of(rows)
        return pc.or_(pc.less(rate(rows), low), pc.greater(rate(rows), high))

    def says(rows: pa.RecordBatch) -> list[str]:
        values = zip(rate(rows).to_pylist(), *(side.to_pylist() for side in fences_of(rows)), strict=True)
        return [f"chars_per_s {found:g} is outside rate_fences {low:g} to {high:g}" for found, low, high in values]

    return Check("rate_fences", drops, says)


def _detected(rows: pa.RecordBatch) -> pa.StringArray:
    """Return the language that Whisper detected; null if it was given the language."""
    told = pc.is_null(of(TRANSCRIPTS, "language_prob")(rows))
    return pc.if_else(told, None, of(TRANSCRIPTS, "language")(rows).cast(pa.string()))


def _one_of(languages: list[str]) -> Check:
    allowed = pa.array(languages, pa.string())

    def drops(rows: pa.RecordBatch) -> Mask:
        found = _detected(rows)
        return pc.and_(pc.is_valid(found), pc.invert(pc.is_in(found, value_set=allowed)))

    def says(rows: pa.RecordBatch) -> list[str]:
        return [f"language {found} is not in languages={languages}" for found in _detected(rows).to_pylist()]

    return Check("language", drops, says)


def _as_the_corpus_says() -> Check:
    def claimed(rows: pa.RecordBatch) -> pa.StringArray:
        named = pc.utf8_lower(rows["language"].cast(pa.string()))
        return pc.replace_substring_regex(named, "[-_].*", "")

    def drops(rows: pa.RecordBatch) -> Mask:
        return pc.and_(pc.not_equal(_detected(rows), claimed(rows)), pc.not_equal(claimed(rows), ""))

    def says(rows: pa.RecordBatch) -> list[str]:
        pairs = zip(_detected(rows).to_pylist(), rows["language"].to_pylist(), strict=True)
        return [f"detected language {found}, but the corpus says {given} (same_language)" for found, given in pairs]

    return Check("same_language", drops, says)


def _no_phrase(path: Path) -> Check:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not a list of phrases in UTF-8, one per line: {error}") from error
    phrases = pc.unique(_bare(pc.replace_substring_regex(pa.array(lines, pa.string()), r"\s+\d+\s*$", "")))

    def drops(rows: pa.RecordBatch) -> Mask:
        no_reference = pc.equal(pc.fill_null(rows["reference_text"], ""), "")
        return pc.and_(no_reference, pc.is_in(_bare(rows["text"]), value_set=phrases))

    def says(rows: pa.RecordBatch) -> list[str]:
        return [f"text is only {text!r}, which is listed in phrases" for text in rows["text"].to_pylist()]

    return Check("phrases", drops, says)


def _not_evaluated(texts: EvaluationTexts) -> Check:
    def shared(rows: pa.RecordBatch) -> list[str | None]:
        sides = [rows["text"]]
        if "response_text" in rows.schema.names:
            sides.append(rows["response_text"])
        if ECHO_TARGETS.name in rows.schema.names:
            sides.append(of(ECHO_TARGETS, "response_text")(rows))
        said = zip(*(side.to_pylist() for side in sides), strict=True)
        return [next(filter(None, map(texts.shared, parts)), None) for parts in said]

    def says(rows: pa.RecordBatch) -> list[str]:
        return [f"shares {run!r} with evaluation_texts" for run in shared(rows)]

    def drops(rows: pa.RecordBatch) -> Mask:
        return pc.and_not(pc.is_valid(pa.array(shared(rows), pa.string())), held_out(rows["split"]))

    return Check("evaluation_texts", drops, says)


def _no_duplicate(path: Path, kinds: list[Likeness]) -> Check:
    known = {each.id: each for each in load_duplicates(path) if each.by in kinds}
    keys = pa.array(known, pa.string())

    def says(rows: pa.RecordBatch) -> list[str]:
        found = (known[key] for key in rows[KEY].to_pylist())
        return [f"has the {each.by} of {each.duplicate_of} (duplicates)" for each in found]

    return Check("duplicate", lambda rows: pc.is_in(rows[KEY], value_set=keys), says)


def _bare(texts: pa.StringArray) -> pa.StringArray:
    """Return texts as Granary compares them with phrases, without sentence-final marks, and in lower case."""
    return pc.utf8_lower(pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, f"[{SENTENCE_ENDS}]", "")))
