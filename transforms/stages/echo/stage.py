"""echo: for a user's turn, the reply in segments, each with the units that it should be spoken with.

The reply is the dialogue's own or EchoX's; it is cut by the streaming rule; a frozen T2C or the echo decoder says each
segment. Where the reply was spoken too, its recorded units are cut at the same borders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeFloat, PositiveInt

from echo_targets.schemas import ALIGNMENTS, ECHO_TARGETS, KEY, SAMPLE_RATE, TRANSCRIPTS, UNITS, UTTERANCES
from echo_targets.schemas.tables.echo_targets import STOP_REASONS
from echo_targets.transforms.assets import asset
from echo_targets.transforms.audio.waveforms import waveforms_of
from echo_targets.transforms.base import Output, Parameters, Reject, Transform, digest_of, joined, rounded, table_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.readers.ctc import target_cer
from echo_targets.transforms.models.readers.registry import open_reader, reader_weights
from echo_targets.transforms.models.t2c.model import Decoded, learned_segments, model_digest
from echo_targets.transforms.models.tokenizers.base import UnitTokenizer
from echo_targets.transforms.models.tokenizers.registry import open_tokenizer
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.segments.rule import SegmentRule, borders_of, recorded_segments
from echo_targets.transforms.stages.echo.responders import (
    Answer,
    Asked,
    Decoder,
    EchoXResponder,
    Responder,
    Sampling,
    Segment,
    Speech,
    Text,
    TextResponder,
)
from echo_targets.transforms.threads import by_one_thread
from echo_targets.transforms.units.language import UnitLanguage

if TYPE_CHECKING:
    from echo_targets.transforms.models.echox.network import Heard

CHARS_PER_SECOND = 15


class EchoParameters(Parameters):
    """Parameters of echo.

    Attributes:
        model: directory of an EchoX checkpoint, or of a text-to-codec model, which only speaks replies that are given;
            or `embedded:NAME`.
        response: `reference`, the dialogue's own reply, or `generated`, EchoX's.
        text: what T2C reads: what the hidden states spell (`hidden`, as in the paper), or the reply's own text.
        decoder: `t2c` on text, or `echo` on hidden states.
        beams: hypotheses of the search for units; 1 is greedy.
        max_tokens: the most tokens of a generated reply.
        temperature: of sampling a reply, 0.2 in EchoX's release; 0 takes the likeliest token.
        top_p: a token is sampled from the likeliest ones that have this probability together, 0.9 in the release; 1
            samples from all.
        dtype: what EchoX computes in.
        codebook, encoder, layer: whose units the model was trained on, as tokenize takes `codebook`, `model` and
            `layer`; of a codec the first codebook.
        prompt: file of a prompt template, or `embedded:NAME`.
        unit_language: as for tokenize; null for units alone.
        reader: what reads the targets back for `target_cer`: directory of a reader of units, or `embedded:NAME`, which
            spells them, or of speechbrain's unit HiFi-GAN, which says them to Whisper; null for none.
        reader_whisper: the Whisper model that hears a vocoder, as `transcribe` with faster-whisper takes it.
        segments: the streaming rule; null takes the one that a text-to-codec model learned, else the release's.
        max_units: the most units of a segment.
        seed: with a row's key it seeds what the row samples; stored with every row.
    """

    model: str = "embedded:echox-nano"
    response: Literal["reference", "generated"] = "reference"
    text: Text = "hidden"
    decoder: Decoder = "t2c"
    beams: PositiveInt = 1
    max_tokens: PositiveInt = 512
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    codebook: str = "embedded:codebook-tiny.en-l3-k100.safetensors"
    encoder: str = EMBEDDED
    layer: int | None = None
    prompt: str = "embedded:prompts/nano.json"
    unit_language: str | None = None
    reader: str | None = None
    reader_whisper: str = EMBEDDED
    segments: SegmentRule | None = None
    max_units: PositiveInt = 1024
    seed: int = 0

    @property
    def files(self) -> set[str]:
        """Parameters that name files, or what of them is meant; their digests stand for them in a fingerprint."""
        return {"model", "codebook", "encoder", "layer", "prompt", "unit_language", "reader", "reader_whisper"}

    def open_codebook(self) -> UnitTokenizer:
        """The tokenizer of the model's units, to ask for its codebook; it is not loaded.

        Raises:
            ModelError: it can't be used.
        """
        return open_tokenizer(self.codebook, self.encoder, self.layer, num_codebooks=1)


ANOTHER_TEXT = 0.5
"""Error rate of a reply's transcript above which its recording is not what the text says: publish's own `max_wer`."""


@dataclass(frozen=True)
class _Draft:
    """A row with all that needs no decoding of units."""

    row: dict[str, Any]
    answer: Answer
    segments: list[Segment]
    char_ends: list[int]
    recorded: list[list[int]] | None


class Echo(Transform):
    """Answers a batch of turns, then decodes all segments of the answers together."""

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
        chosen = parameters
        self._path = asset(chosen.model)
        self._listens = is_echox(self._path)
        self.wants_audio = self._listens
        self._segments = chosen.segments or learned_segments(self._path) or SegmentRule()
        self._speech = Speech(chosen.text, chosen.decoder, chosen.beams, chosen.max_units)
        if not self._listens and (chosen.response, chosen.text, chosen.decoder) != ("reference", "response", "t2c"):
            raise ModelError(
                f"{chosen.model} is a text-to-codec model: response={chosen.response}, text={chosen.text}, "
                f"decoder={chosen.decoder} need an EchoX checkpoint as echo.model; it takes response=reference, "
                "text=response, decoder=t2c"
            )

    def meaning(self) -> dict[str, Any]:
        chosen = self.parameters.model_dump(mode="json", exclude=self.parameters.files)
        return chosen | {"segments": self._segments.model_dump(mode="json")}

    def weights(self) -> dict[str, str]:
        chosen = self.parameters
        language, reader = chosen.unit_language, chosen.reader
        return {
            **_model_digests(self._path),
            "tokenizer": digest_of(self._path / "tokenizer.json"),
            "codebook": chosen.open_codebook().digest,
            "prompt": digest_of(asset(chosen.prompt)),
            **({"unit_language": digest_of(asset(language))} if language else {}),
            **(reader_weights(asset(reader), chosen.reader_whisper) if reader else {}),
        }

    def setup(self) -> None:
        chosen = self.parameters
        self._codebook = chosen.open_codebook()
        self._responder = self._loaded()
        if self._responder.num_units > self._codebook.codebook_size:
            raise ModelError(
                f"{chosen.model} says {self._responder.num_units} units, {self._codebook.codebook_id} has "
                f"{self._codebook.codebook_size}: name the codebook that it was trained on as echo.codebook"
            )
        self._prompt = PromptTemplate.load(asset(chosen.prompt), self._responder.tokenizer)
        language, reader = chosen.unit_language, chosen.reader
        self._unit_language = UnitLanguage.load(asset(language)) if language else None
        if self._unit_language:
            self._unit_language.check_codebook(self._codebook.codebook_id, self._codebook.codebook_size)
        self._reader = open_reader(asset(reader), chosen.reader_whisper, self.device) if reader else None
        if self._reader:
            self._reader.check_codebook(self._codebook.codebook_id, self._codebook.codebook_size)
        self._tokenizer_id = f"tokenizer-{self.weights()['tokenizer'][:8]}"

    def _loaded(self) -> Responder:
        chosen = self.parameters
        if not self._listens:
            return TextResponder(self._path, self.device)
        return EchoXResponder(
            self._path,
            self.device,
            chosen.dtype,
            asset(chosen.prompt),
            chosen.max_tokens,
            Sampling(chosen.temperature, chosen.top_p, chosen.seed),
        )

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        """The user turns of dialogues, each with what was said before it and its reply: the turn that follows it."""
        users = joined(user_turns(window), TRANSCRIPTS, shard.get("transcripts"))
        everyone = shard["utterances"]
        turns = {
            (row["dialogue_id"], row["turn"]): row
            for row in everyone.select(["dialogue_id", "turn", "role", KEY]).to_pylist()
        }
        heard, answered, replies = [], [], []
        for user in users.select(["dialogue_id", "turn"]).to_pylist():
            said = [turns.get((user["dialogue_id"], turn)) for turn in range(user["turn"] + 2)]
            pairs = [(said[turn], said[turn + 1]) for turn in range(user["turn"] + 1)]
            asked = [(turn[KEY], _of_assistant(reply)) for turn, reply in pairs if turn and turn["role"] == "user"]
            heard.append([key for key, _ in asked])
            answered.append([reply for _, reply in asked[:-1]])
            replies.append(asked[-1][1])
        users = users.append_column("user_audio_ids", pa.array(heard, pa.list_(pa.string())))
        users = users.append_column("earlier", _lists_of(answered, _replies(_flat(answered), shard)))
        users = users.append_column("reply", _replies(replies, shard))
        if not self._listens:
            return users
        encoded = pc.struct_field(window["audio"], "bytes").cast(pa.large_binary()).combine_chunks()
        places = pc.index_in(pa.array(_flat(heard), pa.string()), value_set=window[KEY].combine_chunks())
        return users.drop_columns(["audio"]).append_column("user_audio", _lists_of(heard, encoded.take(places)))

    def prepare(self, batch: pa.Table) -> pa.Table:
        if not self._listens:
            return batch
        turns = batch["user_audio"].combine_chunks()
        return batch.drop_columns(["user_audio"]).append_column("waveforms", waveforms_of(turns))

    def costs(self, rows: pa.Table) -> list[int]:
        texts = [_reply_text(reply) or "" for reply in rows["reply"].to_pylist()]
        spoken = [len(text) * SAMPLE_RATE // CHARS_PER_SECOND for text in texts]
        heard = rows["num_samples"].to_pylist() if self._listens else [0] * len(spoken)
        return [sum(pair) for pair in zip(spoken, heard, strict=True)]

    def __call__(self, batch: pa.Table) -> Output:
        audio = _audio_of(batch["waveforms"]) if self._listens else [[] for _ in range(len(batch))]
        rows = batch.drop_columns([name for name in ("waveforms",) if name in batch.column_names]).to_pylist()
        asked = [self._asked(row, turns) for row, turns in zip(rows, audio, strict=True)]
        rejects = [turn for turn in asked if isinstance(turn, Reject)]
        turns = [(row, turn) for row, turn in zip(rows, asked, strict=True) if not isinstance(turn, Reject)]
        heard = self._responder.hear([turn for _, turn in turns])
        written, empty = by_one_thread(lambda: self._answered(turns, heard), self.device)
        if self._reader:
            spoken = [row["response_text"] for row in written], [row["unit_targets"] for row in written]
            for row, rate in zip(written, target_cer(self._reader, *spoken), strict=True):
                row["target_cer"] = rounded(rate)
        return Output(table_of(written, ECHO_TARGETS), [*rejects, *empty])

    def _answered(
        self, turns: list[tuple[dict[str, Any], Asked]], heard: list[list[Heard]]
    ) -> tuple[list[dict[str, Any]], list[Reject]]:
        drafts: list[_Draft] = []
        rejects: list[Reject] = []
        answers = self._responder.answer([turn for _, turn in turns], heard)
        for (row, _), answer in zip(turns, answers, strict=True):
            if answer.ids and answer.text.strip():
                drafts.append(self._draft(row, answer))
            else:
                known = "the tokenizer keeps nothing of it" if answer.text.strip() else answer.stop_reason
                rejects.append(Reject(row[KEY], "empty_reply", f"the reply is empty ({known})"))
        decoded = iter(self._responder.say([segment for draft in drafts for segment in draft.segments], self._speech))
        return [self._row(draft, [next(decoded) for _ in draft.segments]) for draft in drafts], rejects

    def _asked(self, row: dict[str, Any], audio: list[np.ndarray]) -> Asked | Reject:
        """A turn as a responder takes it, or why it can't be answered."""
        reply, generates = row["reply"], self.parameters.response == "generated"
        turn = f"turn {row['turn'] + 1} of dialogue {row['dialogue_id']}"
        text = _reply_text(reply)
        if reply["utterances"] is None and not generates:
            return Reject(row[KEY], "no_reply", f"{turn} is no assistant's turn that could be read")
        if not text and not generates:
            return Reject(row[KEY], "no_reply_text", f"{turn} has neither reference text nor transcript")
        longest = max(map(len, audio), default=0)
        if isinstance(self._responder, EchoXResponder) and longest > self._responder.max_samples:
            most = self._responder.max_samples / SAMPLE_RATE
            message = f"a turn lasts {longest / SAMPLE_RATE:.1f} s, the model hears {most:g} s"
            return Reject(row[KEY], "audio_too_long", message)
        return Asked(row[KEY], audio, [_reply_text(one) or "" for one in row["earlier"]], None if generates else text)

    def _draft(self, row: dict[str, Any], answer: Answer) -> _Draft:
        ends = _ends_that_advance(self._segments.ends(answer.scores), answer)
        segments = [Segment(answer, start, end) for start, end in pairwise([0, *ends])]
        char_ends = [*(answer.char_ends[end - 1] for end in ends[:-1]), len(answer.text)]
        said = answer.text == _reply_text(row["reply"])
        recorded = _recorded(row["reply"], char_ends, self._codebook.codebook_id) if said else None
        return _Draft(row, answer, segments, char_ends, recorded)

    def _row(self, draft: _Draft, decoded: list[Decoded]) -> dict[str, Any]:
        row, language, answer = draft.row, self._unit_language, draft.answer
        targets = [segment.units for segment in decoded]
        heard = row["reference_text"] or (row["transcripts"] or {}).get("text") or ""
        cosines = [self._responder.denoising_cosine(segment) for segment in draft.segments]
        return {
            KEY: row[KEY],
            "dialogue_id": row["dialogue_id"],
            "turn": row["turn"],
            "user_audio_ids": row["user_audio_ids"],
            "prompt_template_id": self._prompt.id,
            "tokenizer_id": self._tokenizer_id,
            "asr_target_ids": self._responder.encode(heard),
            "assistant_after_audio_shift": self._prompt.assistant_after_audio_shift,
            "response_text": answer.text,
            "response_source": self.parameters.response,
            "response_token_ids": answer.ids,
            "sub_lengths": [segment.end - segment.start for segment in draft.segments],
            "segment_char_ends": draft.char_ends,
            "unit_targets": targets,
            "unit_target_words": [language.encode(units) for units in targets] if language else None,
            "recorded_units": draft.recorded,
            "echo_model_id": self._responder.id,
            "decode_id": self._speech.id,
            "codebook_id": self._codebook.codebook_id,
            "seed": self.parameters.seed,
            "mean_logprob": [rounded(segment.mean_logprob) for segment in decoded],
            "hidden_text_agreement": rounded(self._responder.agreement(answer)),
            "denoising_cosine": [rounded(cosine) for cosine in cosines] if self._listens else None,
            "unit_error_rate": rounded(unit_error_rate(targets, draft.recorded)),
            "target_cer": None,
            "stop_reason": [
                *(segment.stop_reason for segment in decoded[:-1]),
                max(decoded[-1].stop_reason, answer.stop_reason, key=STOP_REASONS.index),
            ],
        }


def is_echox(path: Path) -> bool:
    """Whether a model's directory is an EchoX checkpoint, rather than a text-to-codec model."""
    try:
        config = json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} has no config.json that can be read: not a model ({error})") from error
    return isinstance(config, dict) and "text_vocab_size" not in config


def _model_digests(path: Path) -> dict[str, str]:
    if not is_echox(path):
        return {"model": model_digest(path)}
    from echo_targets.transforms.models.checkpoints.files import digest
    from echo_targets.transforms.models.echox.config import EchoXConfig
    from echo_targets.transforms.models.echox.model import tower_digest

    config = EchoXConfig.read(path)
    return {"model": digest(path), "config": config.digest, "audio_tower": tower_digest(path, config)}


def _ends_that_advance(ends: list[int], answer: Answer) -> list[int]:
    """Segments' ends without those whose tokens spell nothing: they go to the segment that follows."""
    kept: list[int] = []
    for end in ends:
        if answer.char_ends[end - 1] > (answer.char_ends[kept[-1] - 1] if kept else 0):
            kept.append(end)
    return [*kept[:-1], ends[-1]]


def _recorded(reply: dict[str, Any], char_ends: list[int], codebook_id: str) -> list[list[int]] | None:
    """Return the reply's recorded units by segment, each a list of collapsed units.

    They are None where the units are of another codebook than the model's, where the recording says something else than
    the reply's text, and where the alignment does not say where to cut. A single segment needs no alignment.
    """
    units, alignment, transcript = reply["units"], reply["alignments"], reply["transcripts"]
    if units is None or units["codebook_id"] != codebook_id:
        return None
    if transcript is not None and (transcript["wer_vs_reference"] or 0.0) > ANOTHER_TEXT:
        return None
    (codebook,) = units["units"]
    if len(char_ends) == 1:
        return [codebook]
    if alignment is None or alignment["status"] == "failed":
        return None
    wanted = "reference" if reply["utterances"]["reference_text"] else "transcript"
    if alignment["text_source"] != wanted:
        return None
    frame = units["hop_samples"] * SAMPLE_RATE / units["sampling_rate"]
    borders = borders_of(alignment["items"], frame, units["num_frames"])
    cut = recorded_segments(codebook, units["durations"], borders, char_ends)
    return None if cut is None else [segment.tolist() for segment in cut]


def _of_assistant(turn: dict[str, Any] | None) -> str | None:
    return str(turn[KEY]) if turn and turn["role"] == "assistant" else None


def _replies(keys: list[str | None], shard: Mapping[str, pa.Table]) -> pa.StructArray:
    """Structs of the rows that belong to turns, by table; null where a table has none."""
    rows = pa.table({"reply_id": pa.array(keys, pa.string())})
    rows = joined(rows, UTTERANCES, shard["utterances"], "reply_id")
    for table in (TRANSCRIPTS, ALIGNMENTS, UNITS):
        rows = joined(rows, table, shard.get(table.name), "reply_id")
    structs = rows.combine_chunks().to_struct_array()
    return structs.combine_chunks() if isinstance(structs, pa.ChunkedArray) else structs


def _flat(lists: list[list[Any]]) -> list[Any]:
    return [value for values in lists for value in values]


def _lists_of(lengths: list[list[Any]], values: pa.Array) -> pa.Array:
    """The values in lists as long as the given ones."""
    offsets = pa.array([0, *accumulate(map(len, lengths))], pa.int64())
    return pa.LargeListArray.from_arrays(offsets, values)


def _audio_of(waveforms: pa.ChunkedArray) -> list[list[np.ndarray]]:
    return [
        [turn.values.to_numpy().copy() for turn in row.values]  # a copy, since torch wants to be able to write
        for row in waveforms
    ]


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
