"""echo: for each user turn, the reply in segments, each with the units it should be spoken with.

The reply is the dialogue's own or EchoX's. The streaming rule cuts it into segments. Who says their units is a choice,
and a row can hold several answers: a frozen T2C, the echo decoder, a voice, or the reply's own recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import ALIGNMENTS, ECHO_TARGETS, KEY, SAMPLE_RATE, TRANSCRIPTS, UNITS, UTTERANCES
from echo_targets.schemas.tables.targets import ORIGINS, STOP_REASONS
from echo_targets.transforms.assets import asset
from echo_targets.transforms.base import Output, Reject, Transform, rounded, table_of
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.readers.ctc import target_cer
from echo_targets.transforms.models.readers.registry import open_reader, reader_weights
from echo_targets.transforms.models.t2c.config import Decoded
from echo_targets.transforms.stages.echo.parameters import EchoParameters, Origin
from echo_targets.transforms.stages.echo.responders.base import Answer, Segment, UserTurn
from echo_targets.transforms.stages.echo.responders.registry import open_responder
from echo_targets.transforms.stages.echo.targets import Target, decoded_target, recorded_target, unit_error_rate
from echo_targets.transforms.stages.echo.turns import reply_text, user_turns, with_dialogue
from echo_targets.transforms.stages.echo.voice import Reply, VoiceOrigin
from echo_targets.transforms.threads import single_threaded
from echo_targets.transforms.units.language import UnitLanguage

CHARS_PER_SECOND = 15


@dataclass(frozen=True)
class _Draft:
    """A reply.

    Attributes:
        reply: the rows of the dialogue's own reply, as `turns.with_dialogue` joins them.
        spoken: the reply as a voice speaks it, in the language of the reply, or else of the user's turn.
        row: the row of `echo_targets`, with the targets so far.
    """

    reply: dict[str, Any]
    spoken: Reply
    row: dict[str, Any]


class Echo(Transform):
    """Replies to a batch of user turns, then decodes all segments of the replies together."""

    name: ClassVar[str] = "echo"
    version: ClassVar[int] = 7
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
        self._voice = VoiceOrigin(parameters.voice, device) if "voice" in parameters.targets else None

    def fingerprint_parameters(self) -> dict[str, Any]:
        chosen = self.parameters.model_dump(mode="json", exclude={*self.parameters.files, "voice"})
        voice = {"voice": self._voice.fingerprint_parameters()} if self._voice else {}
        return chosen | voice | {"segments": self._segment_rule.model_dump(mode="json")}

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
            **({f"voice.{name}": file for name, file in self._voice.weight_digests().items()} if self._voice else {}),
        }

    def check_entries(self, shards: Iterable[pa.Table]) -> None:
        """Check that the prompt has a place for the corpus's system texts, if the model reads the dialogue."""
        prompt = self.parameters.prompt
        if not self.wants_audio or PromptTemplate.read(asset(prompt)).before_system is not None:
            return
        stated, first = 0, ""
        for shard in shards:
            used = pc.and_(pc.is_null(shard["error"]), pc.is_valid(shard["dialogue_id"]))
            found = shard.filter(pc.and_(used, pc.is_valid(shard["system_text"])))
            stated, first = stated + len(found), first or (found[KEY][0].as_py() if len(found) else "")
        if stated:
            raise ModelError(
                f"stages.echo.prompt={prompt} has no place for a system text, but {stated:,} items state one (the "
                f"first: {first}): choose a prompt with `before_system` (docs/ECHOX.md), or list `system` under the "
                "sources' `ignore`"
            )

    def setup(self) -> None:
        chosen = self.parameters
        self._codebook = chosen.open_codebook()
        self._responder.setup()
        if chosen.decodes and self._responder.num_units > self._codebook.codebook_size:
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
        self._check_reader()
        if self._voice:
            self._voice.setup()
        self._tokenizer_id = f"tokenizer-{self.weight_digests()['tokenizer'][:8]}"

    def _check_reader(self) -> None:
        """Check that the reader can read the units of a model or a voice, if one of them says units."""
        if self._reader is None:
            return
        codebook = self._codebook
        known = [(codebook.codebook_id, codebook.codebook_size)] if self.parameters.decodes else []
        known += [self._voice.codebook] if self._voice else []
        errors = []
        for each in known:
            try:
                self._reader.check_codebook(*each)
            except ModelError as error:
                errors.append(error)
        if errors and len(errors) == len(known):
            raise errors[0]

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        """Return the user turns of dialogues, each with the dialogue before it and its reply (the turn after it)."""
        users, audio_ids = with_dialogue(user_turns(window), shard, self.parameters.history_turns)
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
        too_long = [
            self._responder.reject_prompt(turn, dialogue) for (_, turn), dialogue in zip(turns, encoded, strict=True)
        ]
        rejects += [reject for reject in too_long if reject]
        turns = [each for each, reject in zip(turns, too_long, strict=True) if not reject]
        encoded = [each for each, reject in zip(encoded, too_long, strict=True) if not reject]
        drafts, empty = single_threaded(lambda: self._answered(turns, encoded), self.device)
        self._add_other_targets(drafts)
        for origin in self.parameters.targets:
            self._score([draft.row for draft in drafts], origin)
        return Output(table_of([draft.row for draft in drafts], ECHO_TARGETS), [*rejects, *empty])

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
        user = UserTurn(row[KEY], audio, earlier, None if generates else text, row["system_text"])
        return self._responder.reject(user) or user

    def _answered(
        self, turns: list[tuple[dict[str, Any], UserTurn]], encoded: list[list[Any]]
    ) -> tuple[list[_Draft], list[Reject]]:
        """Return the replies, with the targets that the responder decodes, and the rejects of empty replies."""
        answered: list[tuple[dict[str, Any], Answer, list[Segment]]] = []
        rejects: list[Reject] = []
        answers = self._responder.answer([turn for _, turn in turns], encoded)
        for (row, _), answer in zip(turns, answers, strict=True):
            if answer.ids and answer.text.strip():
                ends = _ends_that_advance(self._segment_rule.ends(answer.scores), answer)
                answered.append((row, answer, [Segment(answer, start, end) for start, end in pairwise([0, *ends])]))
            else:
                known = "the tokenizer keeps nothing of it" if answer.text.strip() else answer.stop_reason
                rejects.append(Reject(row[KEY], "empty_reply", f"the reply is empty ({known})"))
        drafts = [self._draft(*each) for each in answered]
        for origin in self.parameters.decodes:
            decoded = iter(self._responder.say([segment for *_, segments in answered for segment in segments], origin))
            for draft, (_, answer, segments) in zip(drafts, answered, strict=True):
                draft.row[origin] = self._decoded([next(decoded) for _ in segments], answer, origin)
        return drafts, rejects

    def _draft(self, row: dict[str, Any], answer: Answer, segments: list[Segment]) -> _Draft:
        user_text = row["reference_text"] or (row["transcripts"] or {}).get("text") or ""
        cosines = self._responder.denoising_cosines(segments)
        char_ends = [*(answer.char_ends[segment.end - 1] for segment in segments[:-1]), len(answer.text)]
        made = {
            KEY: row[KEY],
            "dialogue_id": row["dialogue_id"],
            "turn": row["turn"],
            "user_audio_ids": row["user_audio_ids"],
            "system_text": row["system_text"],
            "prompt_template_id": self._prompt.id,
            "tokenizer_id": self._tokenizer_id,
            "asr_target_ids": self._responder.encode(user_text),
            "assistant_after_audio_shift": self._prompt.assistant_after_audio_shift,
            "response_text": answer.text,
            "response_source": self.parameters.response,
            "response_token_ids": answer.ids,
            "sub_lengths": [segment.end - segment.start for segment in segments],
            "segment_char_ends": char_ends,
            "echo_model_id": self._responder.model_id,
            "seed": self.parameters.seed,
            "hidden_text_agreement": rounded(self._responder.agreement(answer)),
            "denoising_cosine": None if cosines is None else [rounded(cosine) for cosine in cosines],
            **dict.fromkeys(ORIGINS),
        }
        texts = [answer.text[start:end] for start, end in pairwise([0, *char_ends])]
        language = (row["reply"]["utterances"] or row)["language"]
        return _Draft(row["reply"], Reply(texts, language, self.parameters.seed_of(row[KEY])), made)

    def _decoded(self, decoded: list[Decoded], answer: Answer, origin: Origin) -> Target:
        last = decoded[-1]
        ended = max(last.stop_reason, answer.stop_reason, key=STOP_REASONS.index)
        return decoded_target(
            self._codebook,
            [*decoded[:-1], last._replace(stop_reason=ended)],
            model_id=self._responder.model_id,
            decode_id=self.parameters.decode_id(origin),
        )

    def _add_other_targets(self, drafts: list[_Draft]) -> None:
        """Add the targets that need no responder: the recording's and the voice's."""
        if "recorded" in self.parameters.targets:
            for draft in drafts:
                if draft.row["response_text"] == reply_text(draft.reply):
                    draft.row["recorded"] = recorded_target(draft.reply, draft.row["segment_char_ends"])
        if self._voice:
            for draft, target in zip(drafts, self._voice.say([draft.spoken for draft in drafts]), strict=True):
                draft.row["voice"] = target

    def _score(self, rows: list[dict[str, Any]], origin: Origin) -> None:
        """Add the words of the unit language and the scores to one origin's targets."""
        said = [(row, row[origin]) for row in rows if row[origin]]
        for row, target in said:
            if origin != "recorded":
                target["unit_error_rate"] = rounded(unit_error_rate(target, row["recorded"]))
        of_codebook = [(row, each) for row, each in said if each["codebook_id"] == self._codebook.codebook_id]
        if self._unit_language:
            for _, target in of_codebook:
                target["unit_words"] = [self._unit_language.encode(segment[0]) for segment in target["units"]]
        if self._reader:
            read = [(row, target) for row, target in said if self._reads(target)]
            texts, targets = [row["response_text"] for row, _ in read], [target for _, target in read]
            units, durations = ([target[name] for target in targets] for name in ("units", "durations"))
            for target, rate in zip(targets, target_cer(self._reader, texts, units, durations), strict=True):
                target["target_cer"] = rounded(rate)

    def _reads(self, target: Target) -> bool:
        """Return True if the reader can read a target."""
        assert self._reader
        if self._reader.needs_durations and target["durations"] is None:
            return False
        try:
            self._reader.check_codebook(target["codebook_id"], target["codebook_size"])
        except ModelError:
            return False
        return True


def _ends_that_advance(ends: list[int], answer: Answer) -> list[int]:
    """Drop the ends of segments whose tokens spell nothing; their tokens go to the next segment."""
    kept: list[int] = []
    for end in ends:
        if answer.char_ends[end - 1] > (answer.char_ends[kept[-1] - 1] if kept else 0):
            kept.append(end)
    return [*kept[:-1], ends[-1]]
