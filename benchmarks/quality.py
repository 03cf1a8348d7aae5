"""Evaluate an EchoX of the nano domain on the dialogues of split `test`: a table of figures with their targets.

python -m benchmarks.quality ROOT --model DIR --reader DIR [--before DIR] [--limit N]

See also `benchmarks.quality_ablation` (comparison of targets) and `benchmarks.quality_speech` (real speech as input).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import jiwer

from benchmarks.dialogues import BATCH, Dialogues, Row, error_rate, joined_units, segments_of, spoken_error_rate
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.readers.ctc import UnitReader
from echo_targets.transforms.text import normalize
from echo_targets.transforms.training.s2t import ctc_ids

RUNS: dict[str, dict[str, Any]] = {
    "text": {"text": "response"},
    "hidden": {"text": "hidden"},
    "echo": {"text": "hidden", "origin": "echo"},
    "generated": {"response": "generated", "text": "response"},
}
"""Arguments of `Dialogues.echoed` by run. The reply is given and its units are decoded from its text, from the text
that the hidden states spell, or by the echo decoder; in the last run, the reply is generated."""
ABOVE_RECORDED = 0.10


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        name: name of the figure.
        rows: number of dialogues.
        value: a share or a cosine; None if nothing could be measured.
        least, most: bounds of the target, if there is one.
        is_share: True to print the value as a percentage.
    """

    name: str
    rows: int
    value: float | None
    least: float | None = None
    most: float | None = None
    is_share: bool = True

    @property
    def met(self) -> bool | None:
        """True if the value meets the target; None if there is no target."""
        if self.least is None and self.most is None:
            return None
        if self.value is None:
            return False
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        bounds = (("at least", self.least), ("at most", self.most))
        asks = " and ".join(f"{word} {bound:.1%}" for word, bound in bounds if bound is not None)
        value = "" if self.value is None else f"{self.value:.1%}" if self.is_share else f"{self.value:.3f}"
        verdict = {None: "", True: "met", False: "not met"}[self.met]
        return f"| {self.name} | {self.rows:,} | {value} | {asks} | {verdict} |"


@dataclass(frozen=True)
class Quality:
    """The outputs of a model on held-out dialogues.

    Attributes:
        questions: result of `Dialogues.questions`.
        trained: replies in the training data.
        runs: rows of echo_targets by run (see `RUNS`) and key.
        read: the CTC head's transcript of each question.
        reader: unit reader.
    """

    questions: Sequence[Row]
    trained: frozenset[str]
    runs: Mapping[str, Mapping[str, Row]]
    read: Sequence[str]
    reader: UnitReader

    @cached_property
    def unseen(self) -> list[Row]:
        """Questions whose reply is not in the training data."""
        return [question for question in self.questions if question["reply"] not in self.trained]

    def exact(self, questions: Sequence[Row]) -> float | None:
        """Return the share of generated replies that equal the reference exactly; empty replies count as wrong."""
        rows = self.runs["generated"]
        said = [rows.get(question[KEY], {}).get("response_text") for question in questions]
        return _mean(reply == question["reply"] for reply, question in zip(said, questions, strict=True))

    def unit_errors(self, questions: Sequence[Row]) -> float | None:
        """Return the unit error rate of T2C on the replies' text, against the recorded units."""
        rows = self.runs["text"]
        spoken = [question for question in questions if question["units"] and question[KEY] in rows]
        return error_rate([(joined_units(rows[question[KEY]]), question["units"]) for question in spoken])

    def units_against(self, run: str) -> float | None:
        """Return the unit error rate of the echo decoder against another run."""
        rows, others = self.runs["echo"], self.runs[run]
        return error_rate([(joined_units(rows[key]), joined_units(others[key])) for key in rows.keys() & others.keys()])

    def spoken(self, run: str) -> float | None:
        """Return the target_cer of a run."""
        return spoken_error_rate(
            self.reader, [(row["response_text"], segments_of(row)) for row in self.runs[run].values()]
        )

    def recorded(self) -> float | None:
        """Return the target_cer of the recorded units, which measures the reader's own errors."""
        spoken = [(row["reply"], [row["units"]]) for row in self.questions if row["units"]]
        return spoken_error_rate(self.reader, spoken)

    def word_errors(self, told: Callable[[str], str]) -> float:
        """Return the word error rate of the CTC head on the questions."""
        asked = [told(row["reference_text"]) for row in self.questions]
        return float(jiwer.wer(asked, [told(text) for text in self.read]))

    def figures(self) -> Iterable[Figure]:
        """Yield the figures of the table."""
        count, unseen = len(self.questions), self.unseen
        yield Figure("reply, exact match", count, self.exact(self.questions), least=0.9)
        yield Figure("the same, replies unseen in training", len(unseen), self.exact(unseen), least=0.9)
        yield Figure("question, CTC word error rate, with case and marks", count, self.word_errors(str), most=0.1)
        normalized = self.word_errors(lambda text: normalize(text, "en"))
        yield Figure("the same, after Whisper's normalizer", count, normalized)
        agreed = [row["hidden_text_agreement"] for row in self.runs["text"].values()]
        yield Figure("tokens of the reply that hidden states spell", len(agreed), _mean(agreed))
        yield Figure("T2C unit error rate, replies unseen in training", len(unseen), self.unit_errors(unseen), most=0.3)
        yield Figure("the same, all replies", count, self.unit_errors(self.questions))
        recorded = self.recorded()
        most = None if recorded is None else recorded + ABOVE_RECORDED
        yield Figure("target_cer of recorded units", count, recorded)
        yield Figure("target_cer of T2C on the reply's text", len(self.runs["text"]), self.spoken("text"), most=most)
        yield Figure("target_cer of T2C on hidden text", len(self.runs["hidden"]), self.spoken("hidden"), most=most)
        generated = self.spoken("generated")
        yield Figure("target_cer of T2C on generated replies", len(self.runs["generated"]), generated, most=most)
        yield Figure("target_cer of the echo decoder", len(self.runs["echo"]), self.spoken("echo"))
        echo = len(self.runs["echo"])
        yield Figure("echo decoder against T2C on the reply's text, units", echo, self.units_against("text"), most=0.15)
        yield Figure("echo decoder against T2C on hidden text, units", echo, self.units_against("hidden"), most=0.15)
        yield Figure("denoising cosine", echo, cosine(self.runs["echo"]), is_share=False)
        for run, rows in self.runs.items():
            reasons = Counter(reason for row in rows.values() for reason in row["stop_reason"])
            for reason in ("length", "repetition"):
                share = reasons[reason] / max(1, reasons.total())
                yield Figure(f"segments that ended by {reason}, run {run}", len(rows), share)

    def families(self) -> Iterable[str]:
        """Yield lines of the table by family, which is the part of a dialogue's id before the first dash."""
        for family in sorted({_family(row) for row in self.questions}):
            rows = [row for row in self.questions if _family(row) == family]
            new = [row for row in self.unseen if _family(row) == family]
            values = (_percent(value) for value in (self.exact(rows), self.exact(new), self.unit_errors(rows)))
            yield f"| {family} | {len(rows)} | {len(new)} | {' | '.join(values)} |"


def cosine(rows: Mapping[str, Row]) -> float | None:
    """Return the mean denoising cosine of the segments, weighted by their tokens."""
    pairs = [pair for row in rows.values() for pair in zip(row["denoising_cosine"], row["sub_lengths"], strict=True)]
    return sum(value * length for value, length in pairs) / sum(length for _, length in pairs) if pairs else None


def trained_replies(root: str) -> frozenset[str]:
    """Return the texts of the assistant turns of split `train`."""
    rows = Dataset(root).read("utterances", ["role", "split", "reference_text"]).to_pylist()
    return frozenset(row["reference_text"] for row in rows if (row["role"], row["split"]) == ("assistant", "train"))


def ctc_texts(model: str, dialogues: Dialogues) -> list[str]:
    """Return the CTC head's transcript of each question."""
    echox = EchoX.load(Path(model))
    assert echox.tokenizer is not None
    waveforms = [[decode_flac(audio)] for audio in dialogues.audio()]
    batches = (echox.encode_audio(waveforms[first : first + BATCH]) for first in range(0, len(waveforms), BATCH))
    turns = [dialogue[0] for batch in batches for dialogue in batch]
    return [echox.tokenizer.decode(ctc_ids(turn.ctc.tolist(), echox.config.audio_patch_id)) for turn in turns]


def measure(root: str, model: str, reader: str, limit: int | None) -> tuple[Dialogues, Quality]:
    """Run the echo stage with each of `RUNS` on the held-out dialogues."""
    dialogues = Dialogues.read(root, "test", limit)
    runs = {name: dialogues.echoed(model=model, **parameters) for name, parameters in RUNS.items()}
    read = ctc_texts(model, dialogues)
    return dialogues, Quality(dialogues.questions, trained_replies(root), runs, read, UnitReader.load(Path(reader)))


def _family(row: Row) -> str:
    return str(row["dialogue_id"]).partition("-")[0]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", help="root of a nano corpus with utterances and units")
    parser.add_argument("--model", required=True, help="an EchoX checkpoint")
    parser.add_argument("--reader", required=True, help="a unit reader")
    parser.add_argument("--before", help="the checkpoint before stage III, for its denoising cosine")
    parser.add_argument("--limit", type=int, help="use only the first N dialogues")
    chosen = parser.parse_args()
    dialogues, quality = measure(chosen.root, chosen.model, chosen.reader, chosen.limit)
    print("| figure | dialogues | value | target | |\n| --- | --- | --- | --- | --- |")
    for figure in quality.figures():
        print(figure)
    if chosen.before:
        before = dialogues.echoed(model=chosen.before, max_units=1)
        print(Figure("denoising cosine before stage III", len(before), cosine(before), is_share=False))
    print("\n| family | dialogues | replies unseen | exact match | of the unseen | T2C unit error rate |")
    print("| --- | --- | --- | --- | --- | --- |")
    for line in quality.families():
        print(line)


if __name__ == "__main__":
    main()
