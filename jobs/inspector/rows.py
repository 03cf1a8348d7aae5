"""Read the page's rows shard by shard: each utterance joined with its rows of the other tables."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any

from echo_targets.schemas import ALIGNMENTS, ECHO_TARGETS, KEY, MEASURES, SAMPLE_RATE, TRANSCRIPTS, UNITS, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest, must_be_readable
from echo_targets.schemas.dataset.versions import Recipe
from echo_targets.schemas.errors import UserError
from echo_targets.schemas.tables.targets import ORIGINS
from echo_targets.transforms.segments.rule import borders_of, frames_of
from echo_targets.transforms.text import normalize, words_of

Row = dict[str, Any]
Edit = tuple[str, int, int]
SHORT = 90

SCORES = {
    "seconds": "duration of the audio",
    "wer_vs_reference": "error rate of the transcript against the reference, in words or characters (wer_unit)",
    "avg_logprob": "mean log-probability per token of the transcript's worst segment",
    "no_speech_prob": "probability of no speech, highest of all segments",
    "compression_ratio": "compression ratio of the transcript; high if it repeats itself",
    "language_prob": "probability of the detected language",
    "chars_per_s": "characters of the transcript per second",
    "loudness_lufs": "integrated loudness in LUFS",
    "speech_share": "share of the audio that contains speech",
    "bandwidth_hz": "highest frequency with sound, in Hz",
    "clipped_share": "share of samples on a plateau at the recording's extremes",
    "snr_db": "estimated signal-to-noise ratio in dB",
    "dnsmos_sig": "DNSMOS P.835 score of the speech",
    "dnsmos_bak": "DNSMOS P.835 score of the background",
    "dnsmos_ovrl": "DNSMOS P.835 score of the whole",
    "dnsmos_p808": "DNSMOS P.808 score of the whole",
    "unique_word_share": "distinct words divided by all words of the text",
    "repeated_share": "share of the text in runs of five words that occur more than once",
    "alignment_coverage": "share of words that were aligned rather than interpolated",
    "units_per_s": "collapsed units per second",
    "unit_error_rate": "unit error rate of the echo target against the recorded units",
    "target_cer": "character error rate of the echo target's units, read back as text",
    "mean_logprob": "mean log-probability per unit of the echo target's worst segment",
    "denoising_cosine": "cosine of hidden states and text embeddings, lowest of all segments",
    "hidden_text_agreement": "share of reply tokens that the hidden states predict",
    "versions_apart": "unit error rate of the current echo target against the next version",
}
"""Numbers by which rows can be sorted, with a description; the name is that of the column if there is one."""


@dataclass(frozen=True)
class Part:
    """A recipe of a table, and its committed shards by id."""

    recipe: Recipe
    manifests: dict[str, Manifest]


@dataclass(frozen=True)
class PageRow:
    """A row of the page.

    Attributes:
        number: index among all rows.
        detail: values that the row's view shows.
        scores: scores in the order of SCORES, NaN where missing.
        units: row of the `units` table, if any.
        lot: hash in [0, 1), equal for all turns of a dialogue; rows with lot < x are a sample of share x.
        cuts: all cuts of the row's recording in its shard, if the row is the first of them.
    """

    number: int
    detail: Row
    scores: list[float]
    units: Row | None
    lot: float
    cuts: list[Row] | None = None


def recordings_of(utterances: Sequence[Row], first: int) -> dict[int, list[Row]]:
    """Return the utterances of each recording in a shard, by the number of its first one.

    Args:
        utterances: the shard's rows of the table `utterances`.
        first: number of the shard's first row.
    """
    found: dict[str, list[Row]] = {}
    for number, row in enumerate(utterances, first):
        if row["recording_id"] is not None:
            start, end = row["start_sample"] / SAMPLE_RATE, row["end_sample"] / SAMPLE_RATE
            same = {name: row[name] for name in ("channel", "role", "turn")}
            cut = {"number": number, "start": round(start, 2), "end": round(end, 2), **same}
            found.setdefault(row["recording_id"], []).append(cut)
    return {cuts[0]["number"]: cuts for cuts in found.values()}


class Source:
    """The dataset that the page shows.

    Attributes:
        dataset: the dataset.
        parts: current versions of the tables shown.
        targets: versions of echo targets made from the current utterances, the current version first.
        left_out: tables whose current version was made from other utterances.
        firsts: number of each shard's first row, by shard.
        total: number of rows.

    Raises:
        UserError: there is no finished table `utterances`.
    """

    def __init__(self, root: str) -> None:
        self.dataset = Dataset(root)
        current = self.dataset.tables()
        if UTTERANCES.name not in current:
            raise UserError(f"{root}: no table 'utterances' to show. Finish `echo-targets run` first.")
        of = current[UTTERANCES.name].recipe
        self._ids = self.dataset.snapshot(current[UTTERANCES.name].snapshot).ids
        self.parts = {UTTERANCES.name: self._part(UTTERANCES.name, of)}
        self.left_out: list[str] = []
        for name in (TRANSCRIPTS.name, MEASURES.name, ALIGNMENTS.name, UNITS.name):
            if name in current:
                must_be_readable(self.dataset, name)
                part = self._part(name, current[name].recipe)
                fits = part.recipe.upstream.get(UTTERANCES.name) == of
                self.parts.update({name: part} if fits else {})
                self.left_out += [] if fits else [name]
        first = current[ECHO_TARGETS.name].recipe if ECHO_TARGETS.name in current else None
        ordered = sorted(self.dataset.recipes_of(ECHO_TARGETS.name), key=lambda recipe: (recipe != first, recipe))
        made = [self._part(ECHO_TARGETS.name, recipe) for recipe in ordered]
        self.targets = [part for part in made if part.recipe.upstream.get(UTTERANCES.name) == of and part.manifests]
        rows = {shard: manifest.output.rows for shard, manifest in self._shards.items()}
        self.firsts = dict(zip(rows, accumulate(rows.values(), initial=0), strict=False))
        self.total = sum(rows.values())

    @property
    def _shards(self) -> dict[str, Manifest]:
        return self.parts[UTTERANCES.name].manifests

    def _part(self, table: str, fingerprint: str) -> Part:
        recipe = self.dataset.recipe(table, fingerprint)
        return Part(recipe, self.dataset.committed(table, fingerprint, self._ids))

    def shards(self) -> Iterator[list[PageRow]]:
        """Yield the rows of each shard in order, holding one shard in memory at a time."""
        for shard, first in self.firsts.items():
            yield self._rows(shard, first)

    def audio(self, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the FLAC bytes of rows given by ascending numbers; only their row groups are read."""
        wanted = list(numbers)
        for shard, first in self.firsts.items():
            if not wanted or wanted[0] >= first + self._shards[shard].output.rows:
                continue
            with self.dataset.open(self._shards[shard].output.path) as file:
                for group in range(file.num_row_groups):
                    end = first + file.metadata.row_group(group).num_rows
                    here = [number for number in wanted if number < end]
                    if here:
                        wanted = wanted[len(here) :]
                        column = file.read_row_group(group, ["audio.bytes"])["audio"]
                        for number in here:
                            yield number, column[number - first]["bytes"].as_py()
                    first = end

    def _read(self, part: Part | None, shard: str, columns: list[str] | None = None) -> list[Row]:
        if part is None or shard not in part.manifests:
            return []
        path = part.manifests[shard].output.path
        try:
            with self.dataset.open(path) as file:
                return list(file.read(columns).to_pylist())
        except FileNotFoundError as error:
            where = self.dataset.where(path)
            raise LayoutError(
                f"{where}: the shard is missing, though its manifest exists. Run `echo-targets check` for details."
            ) from error

    def _rows(self, shard: str, first: int) -> list[PageRow]:
        columns = [name for name in UTTERANCES.columns if name not in ("audio", "audio_sha256")] + ["audio.path"]
        utterances = self._read(self.parts[UTTERANCES.name], shard, columns)
        tables = {
            name: {row[KEY]: row for row in self._read(self.parts.get(name), shard)}
            for name in (TRANSCRIPTS.name, MEASURES.name, ALIGNMENTS.name, UNITS.name)
        }
        versions = [{row[KEY]: row for row in self._read(part, shard)} for part in self.targets]
        turns = {(row["dialogue_id"], row["turn"]): place for place, row in enumerate(utterances) if row["dialogue_id"]}
        recordings = recordings_of(utterances, first)
        starts = {cut["number"]: start for start, cuts in recordings.items() for cut in cuts}
        made = []
        for place, utterance in enumerate(utterances):
            is_user = utterance["role"] == "user"
            other = turns.get((utterance["dialogue_id"], (utterance["turn"] or 0) + (1 if is_user else -1)))
            joined = {name: rows.get(utterance[KEY]) for name, rows in tables.items()}
            reply = utterances[other] if is_user and other is not None else None
            targets = [rows.get(utterance[KEY]) for rows in versions]
            words = tables[ALIGNMENTS.name].get(reply[KEY]) if reply else None
            detail = _utterance(utterance) | _transcribed(joined[TRANSCRIPTS.name], utterance["reference_text"])
            detail |= _aligned(joined[ALIGNMENTS.name]) | _units(joined[UNITS.name])
            if first + place in starts:
                detail["recording"] = starts[first + place]
            if other is not None:
                detail["other"] = {"number": first + other, "id": utterances[other][KEY], "is_reply": is_user}
            if any(targets):
                detail["targets"] = _targets(targets, words)
            apart = [target.get("apart") for target in detail.get("targets", []) if target["version"] == 1]
            scores = _scores(detail, joined, targets[0] if targets else None, apart[0] if apart else None)
            dialogue = utterance["dialogue_id"] or utterance[KEY]
            lot = zlib.crc32(dialogue.encode()) / 2**32
            cuts = recordings.get(first + place)
            made.append(PageRow(first + place, detail, scores, joined[UNITS.name], lot, cuts))
        return made


def diff(before: Sequence[Any], after: Sequence[Any]) -> list[Edit]:
    """Return the minimal edits that turn one sequence into another, as runs.

    Returns:
        Runs of `=` (equal), `s` (substituted), `d` (deleted) or `i` (inserted), with the number of elements of each
        side.
    """
    from rapidfuzz.distance import Levenshtein

    letters = {"equal": "=", "replace": "s", "delete": "d", "insert": "i"}
    return [
        (letters[code.tag], code.src_end - code.src_start, code.dest_end - code.dest_start)
        for code in Levenshtein.opcodes(before, after)
    ]


def word_diff(reference: str, transcript: str) -> list[tuple[str, str, str]]:
    """Return alternating runs of words in which two texts agree and differ, ignoring case and punctuation.

    In scripts without spaces, each character is a word.

    Returns:
        (`=` if the texts agree or `x` if they differ, words of the reference, words of the transcript) of each run.
    """
    texts = reference, transcript
    plain = [[normalize(word.symbol, "") for word in words_of(text)] for text in texts]
    borders = [_borders_of_words(text) for text in texts]
    made, places = [], [0, 0]
    for same, run in groupby(diff(*plain), key=lambda edit: edit[0] == "="):
        counts = [sum(column) for column in list(zip(*run, strict=True))[1:]]
        ends = [place + count for place, count in zip(places, counts, strict=True)]
        one, other = (
            text[at[start] : at[end]].strip() if start < end else ""
            for text, at, start, end in zip(texts, borders, places, ends, strict=True)
        )
        made.append(("=" if same else "x", one, other))
        places = ends
    return made


def _borders_of_words(text: str) -> list[int]:
    """Return where each word starts, including an opening quotation mark or bracket; the end of the text is last."""
    borders = [0]
    for one, other in pairwise(words_of(text)):
        opening = re.findall(r"(?<=\s)\S*$|$", text[one.char_end : other.char_start])[0]
        borders.append(other.char_start - len(opening))
    return [*borders, len(text)]


def _utterance(row: Row) -> Row:
    names = ("dialogue_id", "turn", "role", "corpus", "split", "language", "speaker_id", "license", "synthetic")
    kept = {name: row[name] for name in names if row[name] is not None}
    if row["recording_id"] is not None:
        start, end = row["start_sample"] / SAMPLE_RATE, row["end_sample"] / SAMPLE_RATE
        kept["place"] = f"{start:.2f} to {end:.2f} s of {row['recording_id']}"
    return kept | {
        "id": row[KEY],
        "seconds": round(row["num_samples"] / SAMPLE_RATE, 4),
        "source": f"{row['audio']['path']}, {row['sampling_rate']} Hz",
        "reference": row["reference_text"],
        "system": row["system_text"],
    }


def _transcribed(row: Row | None, reference: str | None) -> Row:
    if row is None:
        return {}
    found: Row = {"transcript": row["text"], "flags": row["flags"]}
    return found | ({"diff": word_diff(reference, row["text"])} if reference else {})


def _aligned(row: Row | None) -> Row:
    if row is None:
        return {}
    words = [
        (item["symbol"], _second(item["start_sample"]), _second(item["end_sample"]), bool(item["interpolated"]))
        for item in row["items"]
        if item["start_sample"] is not None
    ]
    why = f": {row['reason']}" if row["reason"] else ""
    return {"words": words, "aligned": f"{row['status']}, of the {row['text_source']}{why}"}


def _units(row: Row | None) -> Row:
    if row is None:
        return {}
    first, *others = row["units"]
    named = {"codebook": row["codebook_id"], "hop": row["hop_samples"] / row["sampling_rate"]}
    return named | {"units": first, "others": others, "durations": row["durations"]}


def _targets(rows: Sequence[Row | None], words: Row | None) -> list[Row]:
    """Return the echo targets of a turn: of each version, one for each origin.

    A recording's units are shown next to the other targets of its codebook; only without such targets do they get a
    card.

    Args:
        rows: the turn's row of `echo_targets` in each version.
        words: the alignment of the recorded reply.
    """
    return [target for version, row in enumerate(rows) for target in _of_version(row, version, rows[0], words)]


def _of_version(row: Row | None, version: int, current: Row | None, words: Row | None) -> list[Row]:
    if row is None:
        return [{"version": version, "segments": []}]
    said = {origin: row[origin] for origin in ORIGINS if row[origin]}
    recorded = said.get("recorded")
    others = [target for origin, target in said.items() if origin != "recorded"]
    if recorded and any(_of_one_codebook(target, recorded) for target in others):
        del said["recorded"]
    return [_target(row, origin, current, words) | {"version": version, "origin": origin} for origin in said]


def _of_one_codebook(target: Row, other: Row) -> bool:
    return all(target[name] == other[name] for name in ("codebook_id", "num_codebooks"))


def _target(row: Row, origin: str, current: Row | None, words: Row | None) -> Row:
    """Return an echo target with its units aligned to the recorded ones of the same codebook, segment by segment."""
    target, recorded = row[origin], row["recorded"]
    if origin == "recorded" or (recorded and not _of_one_codebook(target, recorded)):
        recorded = None
    segments = []
    for place, (start, end) in enumerate(pairwise([0, *row["segment_char_ends"]])):
        units, true = target["units"][place], recorded and recorded["units"][place]
        segments.append(
            {
                "text": row["response_text"][start:end],
                "units": units,
                "durations": target["durations"] and target["durations"][place],
                "recorded": true,
                "edits": true and diff([*zip(*units, strict=True)], [*zip(*true, strict=True)]),
                "mean_logprob": target["mean_logprob"] and target["mean_logprob"][place],
                "denoising_cosine": row["denoising_cosine"] and row["denoising_cosine"][place],
                "stop_reason": target["stop_reason"] and target["stop_reason"][place],
            }
        )
    scores = {"hidden_text_agreement": row["hidden_text_agreement"]}
    return {
        "text": row["response_text"],
        "source": row["response_source"],
        "model": target["model_id"] or row["echo_model_id"],
        "codebook": target["codebook_id"],
        "hop": target["hop_samples"] / target["sampling_rate"],
        "segments": segments,
        "borders": _borders(row, words),
        "scores": {name: target[name] for name in ("unit_error_rate", "target_cer")} | scores,
        "apart": None if current is None or current is row else _apart(current[origin], target),
    }


def _apart(current: Row | None, other: Row) -> float | None:
    from rapidfuzz.distance import Levenshtein

    if current is None:
        return None
    units = [[run for segment in target["units"] for run in zip(*segment, strict=True)] for target in (current, other)]
    return round(Levenshtein.distance(*units) / len(units[1]), 4) if units[1] else None


def _borders(row: Row, words: Row | None) -> list[float] | None:
    """Return the seconds at which segments of the recorded reply end, by the rule that cut its units."""
    if row["recorded"] is None:
        return None
    items = words["items"] if words else []
    samples = frames_of(row["segment_char_ends"][:-1], borders_of(items, frame_samples=1, num_frames=2**62))
    known = [_second(sample) for sample in samples if sample is not None]
    return known if len(known) == len(samples) else None


def _second(sample: float) -> float:
    return round(sample / SAMPLE_RATE, 3)


def _scores(detail: Row, joined: dict[str, Row | None], target: Row | None, apart: float | None) -> list[float]:
    transcript, alignment = joined[TRANSCRIPTS.name] or {}, joined[ALIGNMENTS.name] or {}
    segments, row = transcript.get("segments") or [], target or {}
    said: Row = next((row[origin] for origin in ORIGINS if row.get(origin)), {})
    found = {
        "seconds": detail["seconds"],
        "avg_logprob": min((segment["avg_logprob"] for segment in segments), default=None),
        "no_speech_prob": max((segment["no_speech_prob"] for segment in segments), default=None),
        "compression_ratio": max((segment["compression_ratio"] for segment in segments), default=None),
        "alignment_coverage": alignment.get("coverage"),
        "units_per_s": len(detail["units"]) / detail["seconds"] if "units" in detail else None,
        "mean_logprob": min(said.get("mean_logprob") or [], default=None),
        "denoising_cosine": min(row.get("denoising_cosine") or [], default=None),
        "versions_apart": apart,
    }
    columns = {**(joined[MEASURES.name] or {}), **transcript, **row, **said}
    values = (found[name] if name in found else columns.get(name) for name in SCORES)
    return [math.nan if value is None else value for value in values]


def short_text(detail: Row) -> str:
    """Return the row's text, shortened for the list."""
    text = " ".join((detail["reference"] or detail.get("transcript") or "").split())
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"
