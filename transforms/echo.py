"""echo: for a user's turn, the reply in segments, each with the units that the frozen T2C decodes for its text.

Where the reply was spoken too, its recorded units are cut at the same borders. The speech-to-text half of EchoX has
its seat here: `response_source` says where the reply comes from, and the segment rule works on scores, which a
language model gives from its states and `text_scores` from the text alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from schemas import ALIGNMENTS, ECHO_TARGETS, KEY, SAMPLE_RATE, TRANSCRIPTS, UNITS, UTTERANCES
from transforms.assets import asset
from transforms.base import Output, Parameters, Reject, Transform, digest_of, joined, rounded, table_of
from transforms.codebook import Codebook
from transforms.models.t2c import T2C, Decoded, model_digest
from transforms.models.unit_reader import UnitReader, target_cer
from transforms.prompts import PromptTemplate
from transforms.segments import SegmentRule, recorded_segments, text_scores
from transforms.unit_language import UnitLanguage

CHARS_PER_SECOND = 15
DECODE = "greedy"


class EchoParameters(Parameters):
    """Parameters of echo.

    Attributes:
        t2c: directory of a text-to-codec model, or `embedded:NAME`.
        codebook: the codebook whose units the model was trained on.
        prompt: file of a prompt template, or `embedded:NAME`.
        unit_language: as for tokenize; null for units alone.
        reader: directory of a reader of units, or `embedded:NAME`, that gives `target_cer`; null for none.
        segments: the streaming rule.
        max_units: the most units of a segment.
        seed: stored with every row; greedy decoding draws nothing from it.
    """

    t2c: str = "embedded:nano-t2c"
    codebook: str = "embedded:codebook-tiny.en-l3-k100.safetensors"
    prompt: str = "embedded:prompts/nano.json"
    unit_language: str | None = None
    reader: str | None = None
    segments: SegmentRule = SegmentRule()
    max_units: int = 1024
    seed: int = 0


class Echo(Transform):
    """Decodes all segments of a batch of replies together."""

    name: ClassVar[str] = "echo"
    version: ClassVar[int] = 1
    reads = (UTTERANCES, TRANSCRIPTS, ALIGNMENTS, UNITS)
    writes = ECHO_TARGETS
    on_device = True
    Parameters = EchoParameters
    parameters: EchoParameters

    def meaning(self) -> dict[str, Any]:
        chosen = self.parameters.model_dump(mode="json")
        return {name: chosen[name] for name in ("segments", "max_units", "seed")}

    def weights(self) -> dict[str, str]:
        t2c, language, reader = asset(self.parameters.t2c), self.parameters.unit_language, self.parameters.reader
        return {
            "t2c": model_digest(t2c),
            "tokenizer": digest_of(t2c / "tokenizer.json"),
            "codebook": Codebook.load(asset(self.parameters.codebook)).digest,
            "prompt": digest_of(asset(self.parameters.prompt)),
            **({"unit_language": digest_of(asset(language))} if language else {}),
            **({"reader": model_digest(asset(reader))} if reader else {}),
        }

    def setup(self) -> None:
        self._t2c = T2C.load(asset(self.parameters.t2c), self.device)
        self._codebook = Codebook.load(asset(self.parameters.codebook))
        self._prompt = PromptTemplate.load(asset(self.parameters.prompt), self._t2c.tokenizer)
        language = self.parameters.unit_language
        self._unit_language = UnitLanguage.load(asset(language)) if language else None
        reader = self.parameters.reader
        self._reader = UnitReader.load(asset(reader), self.device) if reader else None
        if self._reader:
            self._reader.check_codebook(self._codebook.id)
        self._model_id = f"t2c-{self.weights()['t2c'][:8]}"
        self._tokenizer_id = f"tokenizer-{self.weights()['tokenizer'][:8]}"

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        """The user turns of dialogues, each with its reply: the assistant's turn that follows it."""
        users = user_turns(window)
        users = joined(users, TRANSCRIPTS, shard.get("transcripts"))
        everyone = shard["utterances"]
        turns = {
            (row["dialogue_id"], row["turn"]): row
            for row in everyone.select(["dialogue_id", "turn", "role", KEY]).to_pylist()
        }
        replies, audio = [], []
        for user in users.select(["dialogue_id", "turn"]).to_pylist():
            reply = turns.get((user["dialogue_id"], user["turn"] + 1))
            replies.append(reply[KEY] if reply and reply["role"] == "assistant" else None)
            spoken = (turns.get((user["dialogue_id"], turn)) for turn in range(user["turn"] + 1))
            audio.append([turn[KEY] for turn in spoken if turn and turn["role"] == "user"])
        reply_rows = pa.table({KEY: users[KEY], "reply_id": pa.array(replies, pa.string())})
        reply_rows = joined(reply_rows, UTTERANCES, everyone, "reply_id")
        for table in (TRANSCRIPTS, ALIGNMENTS, UNITS):
            reply_rows = joined(reply_rows, table, shard.get(table.name), "reply_id")
        struct = reply_rows.drop_columns([KEY]).combine_chunks().to_struct_array()
        return users.append_column("user_audio_ids", pa.array(audio, pa.list_(pa.string()))).append_column(
            "reply", struct
        )

    def costs(self, rows: pa.Table) -> list[int]:
        texts = [_reply_text(reply) or "" for reply in rows["reply"].to_pylist()]
        return [len(text) * SAMPLE_RATE // CHARS_PER_SECOND for text in texts]

    def __call__(self, batch: pa.Table) -> Output:
        outcomes = [self._draft(row) for row in batch.to_pylist()]
        rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
        drafts = [outcome for outcome in outcomes if not isinstance(outcome, Reject)]
        texts = [ids for draft in drafts for ids in draft["segment_ids"]]
        decoded = iter(self._t2c.generate(texts, self.parameters.max_units))
        rows = [self._row(draft, [next(decoded) for _ in draft["segment_ids"]]) for draft in drafts]
        if self._reader:
            spoken = [row["response_text"] for row in rows], [row["unit_targets"] for row in rows]
            for row, rate in zip(rows, target_cer(self._reader, *spoken), strict=True):
                row["target_cer"] = rounded(rate)
        return Output(table_of(rows, ECHO_TARGETS), rejects)

    def _draft(self, row: dict[str, Any]) -> dict[str, Any] | Reject:
        """All of a row that needs no decoding, or why it can't be had."""
        reply = row["reply"]
        turn = f"turn {row['turn'] + 1} of dialogue {row['dialogue_id']}"
        if reply["utterances"] is None:
            return Reject(row[KEY], "no_reply", f"{turn} is no assistant's turn that could be read")
        text = _reply_text(reply)
        if not text:
            return Reject(row[KEY], "no_reply_text", f"{turn} has neither reference text nor transcript")
        units = reply["units"]
        if units is not None and units["codebook_id"] != self._codebook.id:
            message = f"the units of {turn} are of {units['codebook_id']}, the T2C model's of {self._codebook.id}"
            return Reject(row[KEY], "other_codebook", message)
        encoding = self._t2c.tokenizer.encode(text, add_special_tokens=False)
        ends = self.parameters.segments.ends(text_scores(text, encoding.offsets))
        char_ends = [encoding.offsets[end - 1][1] for end in ends[:-1]] + [len(text)]
        asked = row["reference_text"] or (row["transcripts"] or {}).get("text") or ""
        return {
            "row": row,
            "text": text,
            "ids": encoding.ids,
            "sub_lengths": [end - start for start, end in pairwise([0, *ends])],
            "segment_ids": [encoding.ids[start:end] for start, end in pairwise([0, *ends])],
            "char_ends": char_ends,
            "asked": self._t2c.encode(asked),
            "recorded": self._recorded(reply, text, char_ends),
        }

    def _recorded(self, reply: dict[str, Any], text: str, char_ends: list[int]) -> list[list[int]] | None:
        units, alignment = reply["units"], reply["alignments"]
        if units is None or alignment is None or alignment["status"] == "failed":
            return None
        wanted = "reference" if reply["utterances"]["reference_text"] else "transcript"
        if alignment["text_source"] != wanted:
            return None
        cut = recorded_segments(units["units"], units["durations"], units["hop_samples"], alignment["items"], char_ends)
        return None if cut is None else [segment.tolist() for segment in cut]

    def _row(self, draft: dict[str, Any], decoded: list[Decoded]) -> dict[str, Any]:
        row, language, targets = draft["row"], self._unit_language, [segment.units for segment in decoded]
        return {
            KEY: row[KEY],
            "dialogue_id": row["dialogue_id"],
            "turn": row["turn"],
            "user_audio_ids": row["user_audio_ids"],
            "prompt_template_id": self._prompt.id,
            "tokenizer_id": self._tokenizer_id,
            "asr_target_ids": draft["asked"],
            "assistant_after_audio_shift": self._prompt.assistant_after_audio_shift,
            "response_text": draft["text"],
            "response_source": "reference",
            "response_token_ids": draft["ids"],
            "sub_lengths": draft["sub_lengths"],
            "segment_char_ends": draft["char_ends"],
            "unit_targets": targets,
            "unit_target_words": [language.encode(units) for units in targets] if language else None,
            "recorded_units": draft["recorded"],
            "echo_model_id": self._model_id,
            "decode_id": DECODE,
            "codebook_id": self._codebook.id,
            "seed": self.parameters.seed,
            "mean_logprob": [rounded(segment.mean_logprob) for segment in decoded],
            "hidden_text_agreement": None,
            "denoising_cosine": None,
            "unit_error_rate": rounded(unit_error_rate(targets, draft["recorded"])),
            "target_cer": None,
            "stop_reason": [segment.stop_reason for segment in decoded],
        }


def user_turns(utterances: pa.Table) -> pa.Table:
    """The rows that ask for a reply: the user's turns of dialogues."""
    asked = pc.equal(utterances["role"].cast(pa.string()), "user")
    return utterances.filter(pc.and_(asked, pc.is_valid(utterances["dialogue_id"])))


def _reply_text(reply: dict[str, Any]) -> str | None:
    utterance, transcript = reply["utterances"], reply["transcripts"]
    if utterance is None:
        return None
    text: str | None = utterance["reference_text"] or (transcript and transcript["text"])
    return text.strip() if text else None


def unit_error_rate(targets: list[list[int]], recorded: list[list[int]] | None) -> float | None:
    """Edits that turn the targets into the recorded units, segment by segment, by recorded units; None without any."""
    from rapidfuzz.distance import Levenshtein

    length = sum(map(len, recorded or []))
    if not recorded or not length:
        return None
    return sum(Levenshtein.distance(*pair) for pair in zip(targets, recorded, strict=True)) / length
