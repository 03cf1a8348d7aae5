"""A checkpoint's `config.json`, as EchoX's release writes it; what the release has in its code is a default here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from transforms.models.embedded import ModelError
from transforms.models.t2c import T2CConfig

HEADER = [128006, 128000, 65576, 128007, 128000, 198]
"""The turn of units in Llama-3 headers, as the released tokenizer spells it."""

SMALL = {"num_layers": 4, "hidden_size": 512, "num_heads": 8, "ffn_size": 2048}
OTHER = {"num_layers": 8, "hidden_size": 768, "num_heads": 12, "num_kv_heads": 12, "ffn_size": 2048}
UNSET = {"num_layers": 6, "hidden_size": 512, "num_heads": 8, "ffn_size": 2048}


class EchoXConfig(BaseModel):
    """Sizes and special tokens. Keys of the file that are not listed are left alone: training writes many.

    Attributes:
        pad_token_id: hidden from attention wherever it stands; in the release it is also what ends a turn.
        audio_tower: the Whisper encoder: `embedded:tiny.en`, or a directory (relative to the checkpoint's).
        audio_context: frames of 20 ms that audio is padded to a multiple of; 1500 is Whisper's own 30 s.
        unit_model: name of the unit decoder's sizes in the release, or the sizes themselves.
        denoiser_size: inner width of the denoising adapter; None is `intermediate_size`, as in the release.
        audio_patch_id: the placeholder of a turn's audio, and the CTC head's blank.
        period_id: the token whose row of `lm_head` the streaming cut compares states with.
        unit_prefix_ids, unit_middle_ids: what stands before the text, and between it and the units.
        units: how many of the unit ids may be decoded.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt | None = None
    max_position_embeddings: PositiveInt = 4096
    rope_theta: PositiveFloat = 500_000.0
    rope_scaling: dict[str, Any] | None = None
    rms_norm_eps: PositiveFloat = 1e-5
    tie_word_embeddings: bool = False
    eos_token_id: int | list[int] = 128009
    pad_token_id: int | None = None
    audio_tower: str = "audio_tower"
    audio_context: PositiveInt = Field(1500, le=1500)
    unit_vocab_size: PositiveInt = 1200
    unit_model: str | dict[str, Any] | None = None
    denoiser_size: PositiveInt | None = None
    units: PositiveInt = 1000
    audio_patch_id: int = 128256
    period_id: int = 13
    unit_prefix_ids: list[int] = [*HEADER, 12800]
    unit_middle_ids: list[int] = [128009, *HEADER]
    unit_end_id: int = 128009

    @field_validator("audio_context")
    @classmethod
    def _pairs(cls, frames: int) -> int:
        if frames % 2:
            raise ValueError("must be even: two neighbouring frames are one")
        return frames

    @classmethod
    def read(cls, path: Path) -> EchoXConfig:
        """Reads `config.json` of a checkpoint's directory.

        Raises:
            ModelError: it is missing, or a size is missing or wrong.
        """
        try:
            return cls.model_validate_json((path / "config.json").read_bytes())
        except OSError as error:
            raise ModelError(f"{path} has no config.json that can be read: not an EchoX model ({error})") from error
        except ValidationError as error:
            problem = error.errors()[0]
            raise ModelError(f"{path}/config.json: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a reply."""
        return self.eos_token_id if isinstance(self.eos_token_id, list) else [self.eos_token_id]

    @property
    def llama(self) -> dict[str, Any]:
        """Arguments of the language model's `transformers.LlamaConfig`."""
        names = (
            "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
            "head_dim max_position_embeddings rope_theta rope_scaling rms_norm_eps"
        )
        return {name: getattr(self, name) for name in names.split()}

    @property
    def unit_decoder(self) -> T2CConfig:
        """Sizes and template of the unit decoder.

        The release configures it as a copy of the language model in which a name replaces some sizes.
        """
        if isinstance(self.unit_model, dict):
            sizes = self.unit_model
        else:
            large = {
                "num_layers": 2,
                "hidden_size": self.hidden_size,
                "num_heads": self.num_attention_heads,
                "ffn_size": self.intermediate_size,
            }
            sizes = {
                "num_kv_heads": self.num_key_value_heads,
                "rope_theta": self.rope_theta,
                "rope_scaling": self.rope_scaling,
                "rms_norm_eps": self.rms_norm_eps,
                **{"large": large, "small": SMALL, None: UNSET}.get(self.unit_model, OTHER),
            }
        return T2CConfig(
            text_vocab_size=self.vocab_size,
            unit_vocab_size=self.unit_vocab_size,
            units=self.units,
            text_embedding_size=self.hidden_size,
            prefix_ids=self.unit_prefix_ids,
            middle_ids=self.unit_middle_ids,
            end_id=self.unit_end_id,
            **sizes,
        )
