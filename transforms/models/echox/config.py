"""A checkpoint's configuration, as written by EchoX's release. Constants in the release's code are defaults here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json
from echo_targets.transforms.models.checkpoints.llama_config import (
    Activation,
    check_heads,
    checked_rope_scaling,
    reject_other_networks,
)
from echo_targets.transforms.models.echox.vocabulary import added_tokens, special_token, unit_spellings
from echo_targets.transforms.models.t2c.config import T2CConfig

HEADER = [128006, 128000, 65576, 128007, 128000, 198]
"""The header of a turn of units in Llama 3's format, as the released tokenizer encodes it."""

AUDIO_PATCH = "<audio_patch>"
MODEL_TYPES = ("EchoX", "ACLlama", "llama")
"""`model_type` of the release, of the authors' earlier code, and of their base language model."""
WITH_DENOISER = ("finetune", "finetune_kd", "finetune_kd_online")
"""`unit_output` of checkpoints with a denoising adapter."""

SMALL = {"num_layers": 4, "hidden_size": 512, "num_heads": 8, "ffn_size": 2048}
OTHER = {"num_layers": 8, "hidden_size": 768, "num_heads": 12, "num_kv_heads": 12, "ffn_size": 2048}
UNSET = {"num_layers": 6, "hidden_size": 512, "num_heads": 8, "ffn_size": 2048}


class EchoXConfig(BaseModel):
    """Sizes and special tokens.

    A key that changes what a Llama computes is supported or rejected (`llama_config.py`). Other unknown keys are
    ignored, since training writes many. The default of a missing key is that of transformers' `LlamaConfig`, which the
    release uses.

    Attributes:
        eos_token_id: tokens that end a reply; `read` adds those of the other files.
        pad_token_id: hidden from attention at any position; in the release it also ends a turn.
        audio_tower: the Whisper encoder: `embedded:tiny.en`, or a directory (see `tower_of`).
        adapter_size: width of the audio tower; None uses the tower's own.
        audio_context: audio is padded to a multiple of this many 20 ms frames; 1500 is Whisper's own 30 s.
        unit_output: training stage in which the release's code wrote the checkpoint.
        unit_model: the release's name for the unit decoder's sizes, or the sizes themselves.
        denoiser_size: inner width of the denoising adapter; None is `intermediate_size`, as in the release.
        audio_patch_id: the placeholder of a turn's audio, and the CTC head's blank.
        period_id: the token whose row of `lm_head` the streaming rule compares states with.
        unit_prefix_ids, unit_middle_ids: ids before the text, and between the text and the units.
        units: number of units.
        unit_spellings: units in each id of the unit decoder, from the tokenizer; None if unit k is `vocab_size` + k.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt | None = None
    hidden_act: Activation = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    max_position_embeddings: PositiveInt = 2048
    rope_theta: PositiveFloat = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    rms_norm_eps: PositiveFloat = 1e-6
    tie_word_embeddings: bool = False
    eos_token_id: int | list[int] = 128009
    pad_token_id: int | None = None
    audio_tower: str = "audio_tower"
    adapter_size: PositiveInt | None = None
    audio_context: PositiveInt = Field(1500, le=1500)
    unit_output: str | None = None
    unit_vocab_size: PositiveInt = 1200
    unit_model: str | dict[str, Any] | None = None
    denoiser_size: PositiveInt | None = None
    units: PositiveInt = 1000
    audio_patch_id: int = 128256
    period_id: int = 13
    unit_prefix_ids: list[int] = [*HEADER, 12800]
    unit_middle_ids: list[int] = [128009, *HEADER]
    unit_end_id: int = 128009
    unit_spellings: dict[int, str] | None = None

    _rope_scaling = field_validator("rope_scaling")(checked_rope_scaling)

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        reject_other_networks(data)
        kind = data.get("model_type")
        if kind is not None and kind not in MODEL_TYPES:
            raise ValueError(f"model_type is {kind!r}; expected {', '.join(MODEL_TYPES)}: use an EchoX checkpoint")
        known = dict(data)
        if "rope_parameters" in known:  # transformers 5 merges both keys
            if known.get("rope_scaling"):
                raise ValueError("has rope_parameters and rope_scaling; remove the one that was not used in training")
            scaling = dict(known.pop("rope_parameters") or {})
            known |= {"rope_theta": scaling.pop("rope_theta")} if "rope_theta" in scaling else {}
            known["rope_scaling"] = scaling or None
        if "unit_model" in known and known["unit_model"] is None:
            known["unit_model"] = "null"  # the release only checks that the key exists, so null counts as a name
        return known

    @field_validator("audio_context")
    @classmethod
    def _pairs(cls, frames: int) -> int:
        if frames % 2:
            raise ValueError("must be even, because pairs of frames are merged")
        return frames

    @field_validator("unit_output")
    @classmethod
    def _trained(cls, stage: str | None) -> str | None:
        if stage is not None and stage not in WITH_DENOISER:
            raise ValueError(
                f"is {stage!r}, a checkpoint without a denoising adapter; use one of echo training "
                f"({', '.join(WITH_DENOISER)})"
            )
        return stage

    @model_validator(mode="after")
    def _heads(self) -> EchoXConfig:
        width, heads = self.hidden_size, self.num_attention_heads
        check_heads(width, heads, self.num_key_value_heads, self.head_dim)
        if width % heads:
            raise ValueError(f"hidden_size {width} does not divide into the {heads} heads of the audio front end")
        return self

    @classmethod
    def read(cls, path: Path) -> EchoXConfig:
        """Load `config.json` of a checkpoint's directory, and the special tokens and units of its tokenizer's files.

        Raises:
            ModelError: `config.json` is missing, a size is missing or wrong, or the network is not supported.
        """
        file = path / "config.json"
        if not file.is_file():
            raise ModelError(f"{path} has no config.json: not an EchoX model")
        written = read_json(file)
        try:
            config = cls.model_validate(written)
            _ = config.unit_decoder  # checks its sizes too
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"])) + ": " if problem["loc"] else ""
            raise ModelError(f"{file}: {place}{problem['msg'].removeprefix('Value error, ')}") from error
        except TypeError as error:  # keys of `unit_model` that are set by other keys
            raise ModelError(f"{file}: unit_model: {error}") from error
        return config.model_copy(update=_of_tokenizer(path, config))

    @property
    def digest(self) -> str:
        """SHA-256 of all fields except the audio tower's path; the tower has its own digest."""
        return hashlib.sha256(self.model_dump_json(exclude={"audio_tower"}).encode()).hexdigest()

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a reply."""
        return self.eos_token_id if isinstance(self.eos_token_id, list) else [self.eos_token_id]

    @property
    def llama(self) -> dict[str, Any]:
        """Arguments of `transformers.LlamaConfig` for the language model."""
        names = (
            "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
            "head_dim hidden_act attention_bias mlp_bias max_position_embeddings rope_theta rope_scaling rms_norm_eps"
        )
        return {name: getattr(self, name) for name in names.split()}

    @property
    def unit_decoder(self) -> T2CConfig:
        """Sizes and template of the unit decoder.

        The release configures it as a copy of the language model in which a name overrides some sizes.
        """
        if isinstance(self.unit_model, dict):
            sizes = self.unit_model
        else:
            large: dict[str, Any] = {
                "num_layers": 2,
                "hidden_size": self.hidden_size,
                "num_heads": self.num_attention_heads,
                "ffn_size": self.intermediate_size,
                "head_dim": self.head_dim,
            }
            sizes = {
                "num_kv_heads": self.num_key_value_heads,
                "hidden_act": self.hidden_act,
                "attention_bias": self.attention_bias,
                "mlp_bias": self.mlp_bias,
                "rope_theta": self.rope_theta,
                "rope_scaling": self.rope_scaling,
                "rms_norm_eps": self.rms_norm_eps,
                **{"large": large, "small": SMALL, None: UNSET}.get(self.unit_model, OTHER),
            }
        return T2CConfig(
            text_vocab_size=self.vocab_size,
            unit_vocab_size=self.unit_vocab_size,
            units=self.units,
            spellings=self.unit_spellings,
            text_embedding_size=self.hidden_size,
            prefix_ids=self.unit_prefix_ids,
            middle_ids=self.unit_middle_ids,
            end_id=self.unit_end_id,
            **sizes,
        )


def _of_tokenizer(path: Path, config: EchoXConfig) -> dict[str, Any]:
    """Return what the release takes from its tokenizer, as fields of the configuration."""
    tokens = added_tokens(path)
    found: dict[str, Any] = {}
    # The release ends a reply at the tokenizer's token; transformers' `generate` at those of the other files.
    end = special_token(path, "eos_token", tokens)
    ends = [*([] if end is None else [end]), *config.end_ids, *_generation_ends(path)]
    found["eos_token_id"] = list(dict.fromkeys(ends))
    padding = special_token(path, "pad_token", tokens)
    if padding is not None:
        found["pad_token_id"] = padding
    if AUDIO_PATCH in tokens and "audio_patch_id" not in config.model_fields_set:
        found["audio_patch_id"] = tokens[AUDIO_PATCH]
    if config.unit_spellings is None:
        found["unit_spellings"] = unit_spellings(path, tokens, config.vocab_size, config.unit_vocab_size, config.units)
    return found


def _generation_ends(path: Path) -> list[int]:
    file = path / "generation_config.json"
    ends = read_json(file).get("eos_token_id") if file.is_file() else None
    return [int(end) for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]
