"""Parameters of the echo stage."""

from __future__ import annotations

import zlib
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from echo_targets.transforms.base import Parameters
from echo_targets.transforms.models.tokenizers.base import UnitTokenizer
from echo_targets.transforms.models.tokenizers.registry import open_tokenizer
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.segments.rule import SegmentRule
from echo_targets.transforms.stages.echo.voice import VoiceParameters

Origin: TypeAlias = Literal["t2c", "echo", "recorded", "voice"]
DECODED: tuple[Origin, ...] = ("t2c", "echo")
"""Origins whose units a model decodes."""


class EchoParameters(Parameters):
    """Parameters of the echo stage.

    Attributes:
        model: directory of an EchoX checkpoint or of a text-to-codec model, or `embedded:NAME`. A text-to-codec model
            can only decode given replies.
        response: `reference`, the dialogue's own reply, or `generated`, EchoX's.
        targets: who says the units of a reply, each in its own column: `t2c` decodes them from text, `echo` from hidden
            states; `recorded` are those of the reply's recording, in any codebook; `voice` those of a voice.
        text: what T2C reads: the text that the hidden states spell (`hidden`, as in the paper) or the reply's own text
            (`response`).
        beams: beam width of the unit decoder; 1 is greedy.
        max_tokens: maximum tokens of a generated reply.
        temperature: sampling temperature of a generated reply, 0.2 in EchoX's release; 0 is greedy.
        top_p: nucleus of the sampling, 0.9 in EchoX's release; 1 samples from all tokens.
        dtype: what EchoX computes in.
        codebook, encoder, layer: the codebook whose units the model was trained on; same syntax as `codebook`, `model`
            and `layer` of the tokenize stage. For a codec, its first codebook.
        prompt: file of a prompt template, or `embedded:NAME`.
        unit_language: as for the tokenize stage; null writes units only.
        reader: reads the targets back for `target_cer`: the directory of a unit reader, `embedded:NAME`, or the
            directory of a vocoder, whose speech Whisper transcribes: a speechbrain unit HiFi-GAN, or the codec of the
            targets, which needs durations; null for none.
        reader_whisper: the Whisper model that transcribes a vocoder's speech.
        history_turns: earlier user turns of a dialogue that the model receives, each with its reply, the latest ones;
            null for all of them.
        segments: the streaming rule; null takes the rule that a text-to-codec model was trained with, else the
            release's.
        voice: the voice that says `voice`, and the tokenizer of its speech.
        max_units: maximum units of a segment.
        seed: with a row's key it seeds what the row samples; stored with every row.
    """

    model: str = "embedded:echox-nano"
    response: Literal["reference", "generated"] = "reference"
    targets: Annotated[list[Origin], Field(min_length=1)] = ["t2c", "recorded"]
    text: Literal["hidden", "response"] = "hidden"
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
    history_turns: NonNegativeInt | None = None
    segments: SegmentRule | None = None
    voice: VoiceParameters = VoiceParameters()
    max_units: PositiveInt = 1024
    seed: int = 0

    @property
    def files(self) -> set[str]:
        """Parameters that name files, or parts of them. In a fingerprint, the files' digests stand for them."""
        return {"model", "codebook", "encoder", "layer", "prompt", "unit_language", "reader", "reader_whisper"}

    @property
    def decodes(self) -> list[Origin]:
        """Those of `targets` that a model decodes."""
        return [origin for origin in self.targets if origin in DECODED]

    def decode_id(self, origin: Origin) -> str:
        """Return how a model decodes units, such as `t2c-hidden-greedy`; stored with every row."""
        read = f"{origin}-{self.text}" if origin == "t2c" else origin
        return f"{read}-{'greedy' if self.beams == 1 else f'beam{self.beams}'}"

    def seed_of(self, key: str) -> int:
        """Return the seed of a row. It depends only on the row's key, not on its batch."""
        return zlib.crc32(f"{self.seed} {key}".encode())

    def open_codebook(self) -> UnitTokenizer:
        """Return the tokenizer of the model's units, not loaded; it describes the codebook.

        Raises:
            ModelError: it can't be used.
        """
        return open_tokenizer(self.codebook, self.encoder, self.layer, num_codebooks=1)
