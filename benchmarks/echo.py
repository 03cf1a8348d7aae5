"""EchoX in batches of 16 against one row at a time: the same questions, the same ids.

python -m benchmarks.echo ROOT --model DIR [--rows 48] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import SAMPLE_RATE, compare
from benchmarks.dialogues import BATCH, MAX_TOKENS, Dialogues
from transforms.assets import asset
from transforms.audio import decode_flac
from transforms.echo import EchoParameters
from transforms.echox.model import EchoX
from transforms.prompts import PromptTemplate

if TYPE_CHECKING:
    from transforms.echox.model import Prompt

Ids = list[list[int]]
Work = Callable[[slice], Ids]


class Works:
    """What is timed, each on some of the questions; the audio is heard beforehand, but where hearing itself is timed.

    Args:
        echox: the model.
        waveforms: of the questions.
        replies: that are given.
        max_units: the most of a reply, as in the stage.
    """

    def __init__(self, echox: EchoX, waveforms: Sequence, replies: Sequence[str], max_units: int) -> None:
        assert echox.tokenizer is not None
        self.echox, self.waveforms, self.max_units = echox, waveforms, max_units
        self.replies = [echox.t2c.encode(reply) for reply in replies]
        template = PromptTemplate.load(asset(EchoParameters().prompt), echox.tokenizer)
        patch = echox.config.audio_patch_id
        ids = [patch if token is None else token for token in template.ids(echox.tokenizer, [])]
        self.prompts: list[Prompt] = []
        for first in range(0, len(waveforms), BATCH):
            heard = echox.hear([[waveform] for waveform in waveforms[first : first + BATCH]])
            self.prompts += [echox.prompt(ids, turns) for turns in heard]

    def generated_then_t2c(self, rows: slice) -> Ids:
        replies = [reply.ids for reply in self.echox.respond(self.prompts[rows], MAX_TOKENS)]
        return replies + self._t2c(replies)

    def given_then_t2c(self, rows: slice) -> Ids:
        states = self.echox.states(self.prompts[rows], self.replies[rows])
        return self._t2c([self.echox.hidden_ids(row) for row in states])

    def generated_then_echo_decoder(self, rows: slice) -> Ids:
        replies = self.echox.respond(self.prompts[rows], MAX_TOKENS)
        said = self.echox.t2c.speak([self.echox.denoised(reply.states) for reply in replies], self.max_units)
        return [row.units for row in said]

    def hearing(self, rows: slice) -> Ids:
        heard = self.echox.hear([[waveform] for waveform in self.waveforms[rows]])
        return [turn.ctc.tolist() for turns in heard for turn in turns]

    def _t2c(self, texts: Ids) -> Ids:
        return [row.units for row in self.echox.t2c.generate(texts, self.max_units)]


def in_batches(work: Work, rows: int, size: int) -> Ids:
    """What a work gives of each row, so many rows at a time: the parts (tokens, units), each after its length."""
    found: list[tuple[Ids, int]] = []
    for first in range(0, rows, size):
        count = min(size, rows - first)
        found.append((work(slice(first, first + count)), count))
    return [
        [value for part in ids[row::count] for value in (len(part), *part)]
        for ids, count in found
        for row in range(count)
    ]


def _run(work: Work, rows: int, size: int, said: dict[int, Ids]) -> None:
    said[size] = in_batches(work, rows, size)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", help="a dataset with dialogues of split test")
    parser.add_argument("--model", required=True, help="an EchoX checkpoint")
    parser.add_argument("--rows", type=int, default=3 * BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    dialogues = Dialogues.read(chosen.root, "test", chosen.rows)
    waveforms = [decode_flac(audio) for audio in dialogues.audio()]
    replies = [question["reply"] for question in dialogues.questions]
    works = Works(EchoX.load(Path(chosen.model)), waveforms, replies, EchoParameters().max_units)
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    print(f"{len(replies)} questions, {seconds:.0f} s, {chosen.threads} threads")
    for work in (works.generated_then_t2c, works.given_then_t2c, works.generated_then_echo_decoder, works.hearing):
        said: dict[int, Ids] = {}
        print(f"\n{work.__name__.replace('_', ' ')}\n")
        sizes = {f"{size} at a time": partial(_run, work, len(replies), size, said) for size in (BATCH, 1)}
        compare({**sizes}, seconds, chosen.rounds)
        ids = sum(map(len, said[1]))
        differ = sum(alone != together for alone, together in zip(said[1], said[BATCH], strict=True))
        print(f"{ids:,} ids; {differ} rows differ")
        assert not differ, "a row depends on its neighbours"


if __name__ == "__main__":
    main()
