"""echo: for each user turn, the reply in segments, each with the units it should be spoken with.

The reply is the dialogue's own or EchoX's. The streaming rule cuts it into segments; a frozen T2C or the echo decoder
decodes their units. If the reply was recorded too, its recorded units are cut at the same borders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from echo_targets.schemas import ALIGNMENTS, ECHO_TARGETS, KEY, SAMPLE_RATE, TRANSCRIPTS, UNITS, UTTERANCES
from echo_targets.schemas.tables.echo_targets import STOP_REASONS
from echo_targets.transforms.assets import asset
from echo_targets.transforms.base import Output, Reject, Transform, rounded, table_of
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.readers.ctc import target_cer
from echo_targets.transforms.models.readers.registry import open_reader, reader_weights
from echo_targets.transforms.models.t2c.config import Decoded
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.recorded import recorded_units, unit_error_rate
from echo_targets.transforms.stages.echo.responders.base import Answer, Segment, UserTurn
from echo_targets.transforms.stages.echo.responders.registry import open_responder
from echo_targets.transforms.stages.echo.turns import reply_text, user_turns, with_dialogue
from echo_targets.transforms.threads import single_threaded
from echo_targets.transforms.units.language import UnitLanguage

CHARS_PER_SECOND = 15


@dataclass(frozen=True)
class _Draft:
    """A row before its units are decoded."""

    row: dict[str, Any]
    answer: Answer
    segments: list[Segment]
    char_ends: list[int]
    recorded: list[list[int]] | None


class Echo(Transform):
    """Replies to a batch of user turns, then decodes all segments of the replies together."""

    name: ClassVar[str] = "echo"
    version: ClassVar[int] = 4
    reads = (UTTERANCES, TRANSCRIPTS, ALIGNMENTS, UNITS)
    writes = ECHO_TARGETS
    on_device = True
    together = "dialogue_id"
    Parameters = EchoParameters
    parameters: EchoParameters

    def __init__(self, parameters: EchoParameters, device: str = "cpu") -> None:
        super().__init__(parameters, device)
        self._responder = open_responder(parameters, device)
        self._segment_rule = self._responder.segment_rule
        self.wants_audio = self._responder.wants_audio

    def fingerprint_parameters(self) -> dict[str, Any]:
        chosen = self.parameters.model_dump(mode="json", exclude=self.parameters.files)
        return chosen | {"segments": self._segment_rule.model_dump(mode="json")}

    def weight_digests(self) -> dict[str, str]:
        chosen = self.parameters
        language, reader = chosen.unit_language, chosen.reader
        return {
            **self._responder.weight_digests(),
            "tokenizer": sha256_of(self._responder.path / "tokenizer.json"),
            "codebook": chosen.open_codebook().digest,
            "prompt": sha256_of(asset(chosen.prompt)),
            **({"unit_language": sha256_of(asset(language))} if language else {}),
            **(reader_weights(asset(reader), chosen.reader_whisper) if reader else {}),
        }

    def setup(self) -> None:
        chosen = self.parameters
        self._codebook = chosen.open_codebook()
        self._responder.setup()
        if self._responder.num_units > self._codebook.codebook_size:
            raise ModelError(
                f"{chosen.model} has {self._responder.num_units} units, but {self._codebook.codebook_id} has "
                f"{self._codebook.codebook_size}: set echo.codebook to the codebook that the model was trained on"
            )
        self._prompt = PromptTemplate.load(asset(chosen.prompt), self._responder.tokenizer)
        language, reader = chosen.unit_language, chosen.reader
        self._unit_language = UnitLanguage.load(asset(language)) if language else None
        if self._unit_language:
            self._unit_language.check_codebook(self._codebook.codebook_id, self._codebook.codebook_size)
        self._reader = open_reader(asset(reader), chosen.reader_whisper, self.device) if reader else None
        if self._reader:
            self._reader.check_codebook(self._codebook.codebook_id, self._codebook.codebook_size)
        self._tokenizer_id = f"tokenizer-{self.weight_digests()['tokenizer'][:8]}"

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        """Return the user turns of dialogues, each with the dialogue before it and its reply (the turn after it)."""
        users, audio_ids = with_dialogue(user_turns(window), shard)
        return self._responder.with_audio(users, window, audio_ids)

    def prepare(self, batch: pa.Table) -> pa.Table:
        return self._responder.prepare(batch)

    def costs(self, rows: pa.Table) -> list[int]:
        texts = [reply_text(reply) or "" for reply in rows["reply"].to_pylist()]
        spoken = [len(text) * SAMPLE_RATE // CHARS_PER_SECOND for text in texts]
        return [sum(pair) for pair in zip(spoken, self._responder.audio_costs(rows), strict=True)]

    def __call__(self, batch: pa.Table) -> Output:
        batch, audio = self._responder.waveforms(batch)
        rows = batch.to_pylist()
        checked = [self._user_turn(row, turns) for row, turns in zip(rows, audio, strict=True)]
        rejects = [turn for turn in checked if isinstance(turn, Reject)]
        turns = [(row, turn) for row, turn in zip(rows, checked, strict=True) if not isinstance(turn, Reject)]
        encoded = self._responder.encode_audio([turn for _, turn in turns])
        written, empty = single_threaded(lambda: self._answered(turns, encoded), self.device)
        if self._reader:
            texts = [row["response_text"] for row in written]
            targets = [[[units] for units in row["unit_targets"]] for row in written]  # one codebook
            for row, rate in zip(written, target_cer(self._reader, texts, targets), strict=True):
                row["target_cer"] = rounded(rate)
        return Output(table_of(written, ECHO_TARGETS), [*rejects, *empty])

    def _user_turn(self, row: dict[str, Any], audio: list[np.ndarray]) -> UserTurn | Reject:
        """Return a row as the responder takes it, or the reject that says why it can't be answered."""
        generates = self.parameters.response == "generated"
        text = reply_text(row["reply"])
        turn = f"turn {row['turn'] + 1} of dialogue {row['dialogue_id']}"
        if row["reply"]["utterances"] is None and not generates:
            return Reject(row[KEY], "no_reply", f"{turn} is not an assistant's turn that could be ingested")
        if not text and not generates:
            return Reject(row[KEY], "no_reply_text", f"{turn} has neither reference text nor transcript")
        earlier = [reply_text(one) or "" for one in row["earlier"]]
        user = UserTurn(row[KEY], audio, earlier, None if generates else text)
        return self._responder.reject(user) or user

    def _answered(
        self, turns: list[tuple[dict[str, Any], UserTurn]], encoded: list[list[Any]]
    ) -> tuple[list[dict[str, Any]], list[Reject]]:
        drafts: list[_Draft] = []
        rejects: list[Reject] = []
        answers = self._responder.answer([turn for _, turn in turns], encoded)
        for (row, _), answer in zip(turns, answers, strict=True):
            if answer.ids and answer.text.strip():
                drafts.append(self._draft(row, answer))
            else:
                known = "the tokenizer keeps nothing of it" if answer.text.strip() else answer.stop_reason
                rejects.append(Reject(row[KEY], "empty_reply", f"the reply is empty ({known})"))
        decoded = iter(self._responder.say([segment for draft in drafts for segment in draft.segments]))
        return [self._row(draft, [next(decoded) for _ in draft.segments]) for draft in drafts], rejects

    def _draft(self, row: dict[str, Any], answer: Answer) -> _Draft:
        ends = _ends_that_advance(self._segment_rule.ends(answer.scores), answer)
        segments = [Segment(answer, start, end) for start, end in pairwise([0, *ends])]
        char_ends = [*(answer.char_ends[end - 1] for end in ends[:-1]), len(answer.text)]
        as_recorded = answer.text == reply_text(row["reply"])
        recorded = recorded_units(row["reply"], char_ends, self._codebook.codebook_id) if as_recorded else None
        return _Draft(row, answer, segments, char_ends, recorded)

    def _row(self, draft: _Draft, decoded: list[Decoded]) -> dict[str, Any]:
        row, language, answer = draft.row, self._unit_language, draft.answer
        targets = [segment.units for segment in decoded]
        user_text = row["reference_text"] or (row["transcripts"] or {}).get("text") or ""
        cosines = self._responder.denoising_cosines(draft.segments)
        return {
            KEY: row[KEY],
            "dialogue_id": row["dialogue_id"],
            "turn": row["turn"],
            "user_audio_ids": row["user_audio_ids"],
            "prompt_template_id": self._prompt.id,
            "tokenizer_id": self._tokenizer_id,
            "asr_target_ids": self._responder.encode(user_text),
            "assistant_after_audio_shift": self._prompt.assistant_after_audio_shift,
            "response_text": answer.text,
            "response_source": self.parameters.response,
            "response_token_ids": answer.ids,
            "sub_lengths": [segment.end - segment.start for segment in draft.segments],
            "segment_char_ends": draft.char_ends,
            "unit_targets": targets,
            "unit_target_words": [language.encode(units) for units in targets] if language else None,
            "recorded_units": draft.recorded,
            "echo_model_id": self._responder.model_id,
            "decode_id": self.parameters.decode_id,
            "codebook_id": self._codebook.codebook_id,
            "seed": self.parameters.seed,
            "mean_logprob": [rounded(segment.mean_logprob) for segment in decoded],
            "hidden_text_agreement": rounded(self._responder.agreement(answer)),
            "denoising_cosine": None if cosines is None else [rounded(cosine) for cosine in cosines],
            "unit_error_rate": rounded(unit_error_rate(targets, draft.recorded)),
            "target_cer": None,
            "stop_reason": [
                *(segment.stop_reason for segment in decoded[:-1]),
                max(decoded[-1].stop_reason, answer.stop_reason, key=STOP_REASONS.index),
            ],
        }


def _ends_that_advance(ends: list[int], answer: Answer) -> list[int]:
    """Drop the ends of segments whose tokens spell nothing; their tokens go to the next segment."""
    kept: list[int] = []
    for end in ends:
        if answer.char_ends[end - 1] > (answer.char_ends[kept[-1] - 1] if kept else 0):
            kept.append(end)
    return [*kept[:-1], ends[-1]]
