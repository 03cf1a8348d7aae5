"""Compare batched EchoX with the release's row-by-row decoding and with transformers' `generate`, for equal ids.

python -m benchmarks.echo [--limit 32] [--rounds 5] [--model DIR]

The questions are those of nano's test dialogues, spoken by the embedded voice beforehand. Runs with two threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import compare, options
from benchmarks.dialogues import BATCH, MAX_TOKENS
from benchmarks.generate import Generating
from echo_targets.jobs.corpora.nano_domain import rows as lines_of_domain
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.voices.delivery import Delivery, deliver
from echo_targets.transforms.models.voices.registry import open_voice
from echo_targets.transforms.stages.echo.parameters import EchoParameters

if TYPE_CHECKING:
    from echo_targets.transforms.models.echox.model import Prompt

QUESTIONS = 32
Ids = list[list[int]]
Work = Callable[[slice], Ids]


class Works:
    """The tasks to time, each on some of the questions. Audio is encoded beforehand unless encoding itself is timed.

    Args:
        echox: the model.
        waveforms: audio of the questions, float32 at 16 kHz.
        replies: the given replies.
        max_units: maximum number of units of a reply, as in the stage.
    """

    def __init__(self, echox: EchoX, waveforms: Sequence[np.ndarray], replies: Sequence[str], max_units: int) -> None:
        assert echox.tokenizer is not None
        self.echox, self.waveforms, self.max_units = echox, waveforms, max_units
        self.generating = Generating(echox)
        self.replies = [echox.t2c.encode(reply) for reply in replies]
        template = PromptTemplate.load(asset(EchoParameters().prompt), echox.tokenizer)
        patch = echox.config.audio_patch_id
        ids = [patch if token is None else token for token in template.ids(echox.tokenizer, [])]
        self.prompts: list[Prompt] = []
        for first in range(0, len(waveforms), BATCH):
            heard = echox.encode_audio([[waveform] for waveform in waveforms[first : first + BATCH]])
            self.prompts += [echox.prompt(ids, turns) for turns in heard]

    def generated_then_t2c(self, rows: slice) -> Ids:
        replies = [reply.ids for reply in self.echox.respond(self.prompts[rows], MAX_TOKENS)]
        return replies + self._t2c(replies)

    def generated_then_t2c_by_transformers(self, rows: slice) -> Ids:
        replies = self.generating.replies(self.prompts[rows], MAX_TOKENS)
        return replies + self.generating.speak(replies, self.max_units)

    def given_then_t2c(self, rows: slice) -> Ids:
        return self._t2c(self._spelled(rows))

    def given_then_t2c_by_transformers(self, rows: slice) -> Ids:
        return self.generating.speak(self._spelled(rows), self.max_units)

    def generated_then_echo_decoder(self, rows: slice) -> Ids:
        replies = self.echox.respond(self.prompts[rows], MAX_TOKENS)
        said = self.echox.t2c.speak([self.echox.denoised(reply.states) for reply in replies], self.max_units)
        return [row.units for row in said]

    def hearing(self, rows: slice) -> Ids:
        heard = self.echox.encode_audio([[waveform] for waveform in self.waveforms[rows]])
        return [turn.ctc.tolist() for turns in heard for turn in turns]

    def _spelled(self, rows: slice) -> Ids:
        return [self.echox.hidden_ids(row) for row in self.echox.states(self.prompts[rows], self.replies[rows])]

    def _t2c(self, texts: Ids) -> Ids:
        return [row.units for row in self.echox.t2c.generate(texts, self.max_units)]


def in_batches(work: Work, rows: int, size: int) -> Ids:
    """Run a task in batches and return each row's parts (tokens, units), each preceded by its length."""
    found: list[tuple[Ids, int]] = []
    for first in range(0, rows, size):
        count = min(size, rows - first)
        found.append((work(slice(first, first + count)), count))
    return [
        [value for part in ids[row::count] for value in (len(part), *part)]
        for ids, count in found
        for row in range(count)
    ]


def spoken(count: int) -> tuple[list[np.ndarray], list[str]]:
    """Return the questions of nano's test dialogues, spoken with their voice settings, and the replies."""
    voice, lines = open_voice(), lines_of_domain()
    voice.setup()
    dialogues = ((line, next(lines)) for line in lines)
    pairs = list(islice((pair for pair in dialogues if pair[0]["split"] == "test"), count))
    waveforms = [deliver(voice, question["text"], Delivery(**question["voice"])) for question, _ in pairs]
    return waveforms, [reply["text"] for _, reply in pairs]


def _run(work: Work, rows: int, size: int, name: str, said: dict[str, Ids]) -> None:
    said[name] = in_batches(work, rows, size)


def main() -> None:
    import torch

    parser = options(__doc__)
    parser.add_argument("--model", default=EchoParameters().model, help="an EchoX checkpoint (default: nano)")
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    waveforms, replies = spoken(chosen.limit or QUESTIONS)
    works = Works(EchoX.load(Path(asset(chosen.model))), waveforms, replies, EchoParameters().max_units)
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    print(f"{len(replies)} questions, {seconds:.0f} s")
    ours, alone, theirs = f"echo-targets, {BATCH} at a time", "the same, 1 at a time", f"generate, {BATCH} at a time"
    for work, by_transformers in (
        (works.given_then_t2c, works.given_then_t2c_by_transformers),
        (works.generated_then_t2c, works.generated_then_t2c_by_transformers),
        (works.generated_then_echo_decoder, None),
        (works.hearing, None),
    ):
        said: dict[str, Ids] = {}
        runs = {
            ours: (work, BATCH),
            alone: (work, 1),
            **({theirs: (by_transformers, BATCH)} if by_transformers else {}),
        }
        print(f"\n{work.__name__.replace('_', ' ')}\n")
        contenders = {name: partial(_run, run, len(replies), size, name, said) for name, (run, size) in runs.items()}
        compare(contenders, seconds, chosen.rounds)
        for name in [name for name in said if name != ours]:
            differ = sum(one != other for one, other in zip(said[ours], said[name], strict=True))
            print(f"{sum(map(len, said[name])):,} ids; {differ} rows differ from those of {name}")
        assert said[ours] == said[alone], "a row depends on its neighbours"


if __name__ == "__main__":
    main()
