"""EchoX as responder: it encodes the dialogue, predicts or writes the reply, and cuts it by its hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.transforms.assets import asset
from echo_targets.transforms.audio.waveforms import waveforms_of
from echo_targets.transforms.base import Reject
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import digest
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX, tower_digest
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.t2c.config import Decoded
from echo_targets.transforms.models.t2c.model import is_t2c
from echo_targets.transforms.stages.echo.parameters import Origin
from echo_targets.transforms.stages.echo.responders.base import Answer, Responder, Segment, UserTurn
from echo_targets.transforms.stages.echo.turns import lists_like
from echo_targets.transforms.threads import in_parallel

if TYPE_CHECKING:
    from torch import Tensor

    from echo_targets.transforms.models.echox.model import Prompt
    from echo_targets.transforms.models.echox.network import EncodedAudio


class EchoXResponder(Responder):
    """An EchoX checkpoint."""

    wants_audio: ClassVar[bool] = True

    @staticmethod
    def can_load(path: Path) -> bool:
        return not is_t2c(path)

    def weight_digests(self) -> dict[str, str]:
        config = EchoXConfig.read(self.path)
        return {"model": digest(self.path), "config": config.digest, "audio_tower": tower_digest(self.path, config)}

    def setup(self) -> None:
        self._echox = EchoX.load(self.path, self.device, self.parameters.dtype)
        if self._echox.tokenizer is None:
            raise ModelError(f"{self.path} has no tokenizer.json: copy the language model's next to its weights")
        self.tokenizer = self._echox.tokenizer
        self.num_units = self._echox.t2c.config.num_units
        self.model_id = f"echox-{digest(self.path)[:8]}"
        self._template = PromptTemplate.load(asset(self.parameters.prompt), self.tokenizer)
        added = self.tokenizer.get_added_tokens_decoder()
        self._special = {number: token.content for number, token in added.items() if token.special}

    def with_audio(self, users: pa.Table, window: pa.Table, audio_ids: list[list[str]]) -> pa.Table:
        encoded = pc.struct_field(window["audio"], "bytes").cast(pa.large_binary()).combine_chunks()
        keys = pa.array([key for row in audio_ids for key in row], pa.string())
        places = pc.index_in(keys, value_set=window[KEY].combine_chunks())
        return users.drop_columns(["audio"]).append_column("user_audio", lists_like(audio_ids, encoded.take(places)))

    def prepare(self, batch: pa.Table) -> pa.Table:
        turns = batch["user_audio"].combine_chunks()
        return batch.drop_columns(["user_audio"]).append_column("waveforms", waveforms_of(turns))

    def waveforms(self, batch: pa.Table) -> tuple[pa.Table, list[list[np.ndarray]]]:
        audio = [
            [turn.values.to_numpy().copy() for turn in row.values]  # copied, since torch wants writable arrays
            for row in batch["waveforms"]
        ]
        return batch.drop_columns(["waveforms"]), audio

    def audio_costs(self, rows: pa.Table) -> list[int]:
        return rows["num_samples"].to_pylist()

    def reject(self, turn: UserTurn) -> Reject | None:
        longest, most = max(map(len, turn.audio), default=0), self._echox.tower.max_samples
        if longest > most:
            lasts = f"a turn lasts {longest / SAMPLE_RATE:.1f} s"
            return Reject(
                turn.key, "audio_too_long", f"{lasts}, but the model encodes at most {most / SAMPLE_RATE:g} s"
            )
        special = [self._special[token] for token in self.encode(turn.system_text or "") if token in self._special]
        if special:
            message = f"the system text has {special[0]}, which is a special token of the model: remove it"
            return Reject(turn.key, "bad_system_text", message)
        return None

    def encode_audio(self, turns: Sequence[UserTurn]) -> list[list[EncodedAudio]]:
        return in_parallel(self._echox.encode_audio, [turn.audio for turn in turns], self.device)

    def reject_prompt(self, turn: UserTurn, encoded: list[EncodedAudio]) -> Reject | None:
        most = self._echox.config.max_position_embeddings
        prompt = len(self._prompt_ids(turn)) - len(encoded) + sum(len(each.embeddings) for each in encoded)
        # A long reply alone is no reason: its last states are scored like any others.
        reply = self.parameters.max_tokens if turn.reply is None else len(self.encode(turn.reply))
        needed = prompt if len(encoded) == 1 else prompt + reply
        if needed <= most:
            return None
        what = "the turn needs" if len(encoded) == 1 else "the dialogue and its reply need"
        remedies = [] if len(encoded) == 1 else ["set stages.echo.history_turns to fewer turns"]
        if turn.system_text is not None:
            remedies.append(f"shorten the system text, which has {len(self.encode(turn.system_text))} tokens")
        remedy = f"; {', or '.join(remedies)}" if remedies else ""
        return Reject(turn.key, "context_too_long", f"{what} {needed} positions, but the model has {most}{remedy}")

    def answer(self, turns: Sequence[UserTurn], encoded: Sequence[list[EncodedAudio]]) -> list[Answer]:
        if not turns:
            return []
        pairs = zip(turns, encoded, strict=True)
        prompts = [self._echox.prompt(self._prompt_ids(turn), dialogue) for turn, dialogue in pairs]
        generates = any(turn.reply is None for turn in turns)
        return self._generated(turns, prompts) if generates else self._given(turns, prompts)

    def _prompt_ids(self, turn: UserTurn) -> list[int]:
        replies = [self.encode(reply) for reply in turn.replies]
        ids = self._template.ids(self.tokenizer, replies, turn.system_text)
        return [self._echox.config.audio_patch_id if token is None else token for token in ids]

    def _given(self, turns: Sequence[UserTurn], prompts: Sequence[Prompt]) -> list[Answer]:
        start = self._template.reply_start(self.tokenizer)
        encodings = [self.tokenizer.encode(turn.reply or "", add_special_tokens=False) for turn in turns]
        replies = [[*start, *encoding.ids] if encoding.ids else [] for encoding in encodings]
        ends = [[*[0] * len(start), *(end for _, end in encoding.offsets)] for encoding in encodings]
        states = self._echox.states(prompts, replies)
        return [
            Answer(turn.reply or "", ids, char_ends[: len(ids)], self._echox.trigger_scores(state), state)
            for turn, ids, char_ends, state in zip(turns, replies, ends, states, strict=True)
        ]

    def _generated(self, turns: Sequence[UserTurn], prompts: Sequence[Prompt]) -> list[Answer]:
        chosen = self.parameters
        seeds = [chosen.seed_of(turn.key) for turn in turns]
        answers = []
        for reply in self._echox.respond(prompts, chosen.max_tokens, chosen.temperature, chosen.top_p, seeds):
            ends = [len(self.tokenizer.decode(reply.ids[: count + 1])) for count in range(len(reply.ids))]
            scores = self._echox.trigger_scores(reply.states)
            text = self.tokenizer.decode(reply.ids)
            answers.append(Answer(text, reply.ids, ends, scores, reply.states, reply.stop_reason))
        return answers

    def say(self, segments: Sequence[Segment], origin: Origin) -> list[Decoded]:
        t2c, chosen = self._echox.t2c, self.parameters
        if origin == "echo":
            states = [self._echox.denoised(self._states(segment)) for segment in segments]
            return t2c.speak(states, chosen.max_units, chosen.beams)
        if chosen.text == "response":
            return t2c.generate([segment.ids for segment in segments], chosen.max_units, chosen.beams)
        spelled = [self._echox.hidden_ids(self._states(segment)) for segment in segments]
        silent = {*self._echox.config.end_ids, self._echox.config.audio_patch_id}
        texts = [[token for token in ids if token not in silent] for ids in spelled]
        return t2c.generate(texts, chosen.max_units, chosen.beams)

    def agreement(self, answer: Answer) -> float | None:
        assert answer.states is not None
        spelled = self._echox.hidden_ids(answer.states)
        return sum(map(int.__eq__, spelled, answer.ids)) / len(answer.ids)

    def denoising_cosines(self, segments: Sequence[Segment]) -> list[float] | None:
        cosines = [self._echox.denoising_cosines(self._states(segment), segment.ids) for segment in segments]
        return [sum(values) / len(values) for values in cosines]

    def _states(self, segment: Segment) -> Tensor:
        assert segment.answer.states is not None
        return segment.answer.states[segment.start : segment.end]
