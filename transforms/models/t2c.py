"""Text to codec: the speech units that say a text, from a small decoder kept as a directory of three files.

`config.json`, `model.safetensors` (tensor names as in EchoX's `unit_translator.*`; half precision on disk is computed
in float32) and `tokenizer.json` (Hugging Face `tokenizers`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from transforms.models.embedded import ModelError, sha256_of
from transforms.models.llama_config import Activation, check_heads, checked_rope_scaling
from transforms.models.tensors import check_tensors, write_tensors
from transforms.segments import SegmentRule

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from transforms.models.t2c_module import T2CModule

StopReason = Literal["end", "length", "repetition"]
LOOP_WINDOW, LOOP_PERIOD = 32, 8
SPELLED = (
    "the unit decoder's ids are words of units, such as `<|unit_837_81_194|>`, and training rows hold single units. "
    "Take a model in which id k is unit k (`spellings: null`), such as one that `echo-targets train s2t` makes"
)
CHARACTERS = " abcdefghijklmnopqrstuvwxyz'.,?!-0123456789"
SPECIALS = ("<pad>", "<unk>", "<user>", "<assistant>", "<end>")


class T2CConfig(BaseModel):
    """Sizes, and the template around a text: `prefix_ids`, text, `middle_ids`, units, `end_id`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_vocab_size: PositiveInt
    unit_vocab_size: PositiveInt
    units: PositiveInt | None = None  # of them are decoded; null for all
    text_embedding_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt
    ffn_size: PositiveInt
    head_dim: PositiveInt | None = None  # null for hidden_size / num_heads
    hidden_act: Activation = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    max_positions: PositiveInt = 2048
    rope_theta: PositiveFloat = 10_000.0
    rope_scaling: dict[str, Any] | None = None  # as transformers' LlamaConfig takes it
    rms_norm_eps: PositiveFloat = 1e-6
    prefix_ids: list[int]
    middle_ids: list[int]
    end_id: int
    max_units_per_text_token: PositiveFloat = 40.0  # a longer answer is a runaway
    units_per_text_token: PositiveFloat | None = None  # see T2CModule.positions
    segments: SegmentRule | None = None  # that texts were cut by in training, and echo cuts them by; null if unknown
    spellings: dict[int, str] | None = None  # units of an id, such as "_837_81_194"; null: k is text_vocab_size + k

    _rope_scaling = field_validator("rope_scaling")(checked_rope_scaling)

    @model_validator(mode="after")
    def _heads(self) -> T2CConfig:
        check_heads(self.hidden_size, self.num_heads, self.num_kv_heads, self.head_dim)
        return self

    @property
    def num_units(self) -> int:
        """Units that are decoded are below this."""
        if self.spellings is None:
            return min(self.units or self.unit_vocab_size, self.unit_vocab_size)
        numbers = (int(number) for spelling in self.spellings.values() for number in re.findall("[0-9]+", spelling))
        return 1 + max((number for number in numbers if self.units is None or number < self.units), default=0)

    @property
    def decodable(self) -> list[int]:
        """Ids that may be decoded beside `end_id`, of the whole vocabulary."""
        if self.spellings is not None:
            return sorted(self.spellings)
        first = self.text_vocab_size
        return list(range(first, first + self.num_units))

    def spelled(self, ids: Sequence[int]) -> list[int]:
        """Ids of the whole vocabulary as units, without equal neighbours where ids are words of units."""
        if self.spellings is None:
            return [number - self.text_vocab_size for number in ids]
        # Joined before it is read, as in the release: a number may be spelled by more than one id.
        numbers = map(int, re.findall("[0-9]+", "".join(self.spellings[number] for number in ids)))
        return [unit for unit, _ in groupby(unit for unit in numbers if self.units is None or unit < self.units)]

    def prompt(self, text_ids: list[int]) -> list[int]:
        """The ids before the first unit."""
        return [*self.prefix_ids, *text_ids, *self.middle_ids]


class Chosen(NamedTuple):
    """A decoded row: ids of the whole vocabulary without the end, a log-probability for every choice made."""

    ids: list[int]
    logprobs: list[float]
    stop_reason: StopReason


class Decoded(NamedTuple):
    """Units of one text, no two equal neighbours; the mean log-probability of the choices, the end's among them."""

    units: list[int]
    mean_logprob: float
    stop_reason: StopReason


class T2C:
    """A text-to-codec model ready to decode.

    Attributes:
        config: sizes and template.
        module: the network, float32, in evaluation mode.
        tokenizer: text to ids, with offsets into the text as it was given.
    """

    def __init__(self, config: T2CConfig, module: T2CModule, tokenizer: Tokenizer) -> None:
        self.config, self.module, self.tokenizer = config, module, tokenizer

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> T2C:
        """Read a model directory.

        Raises:
            ModelError: a file is missing or damaged, or tensors are missing, surplus or of another shape.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        from transforms.models.t2c_module import T2CModule

        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            if not (path / name).is_file():
                raise ModelError(f"{path} has no {name}: not a text-to-codec model")
        try:
            config = T2CConfig.model_validate_json((path / "config.json").read_bytes())
            state = load_file(path / "model.safetensors", device=device)
        except (ValidationError, SafetensorError) as error:
            raise ModelError(f"{path}: damaged text-to-codec model ({error})") from error
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        if tokenizer.get_vocab_size() > config.text_vocab_size:
            raise ModelError(f"{path}: the tokenizer has {tokenizer.get_vocab_size()} ids, more than text_vocab_size")
        module = T2CModule(config)
        check_tensors(path, module.state_dict(), state)
        module.load_state_dict(state)
        return cls(config, module.float().to(device).eval(), tokenizer)

    def save(self, path: Path, half: bool = False) -> None:
        """Write the model directory, in half precision where told."""
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(self.config.model_dump_json(indent=1) + "\n")
        self.tokenizer.save(str(path / "tokenizer.json"))
        write_tensors(path / "model.safetensors", self.module.state_dict(), half)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the template."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def generate(self, text_ids: list[list[int]], max_new_units: int = 1024, beams: int = 1) -> list[Decoded]:
        """Units for each text; a row's result does not depend on its neighbours.

        Args:
            text_ids: a list of ids for every text; an empty one says nothing.
            max_new_units: the most for a row; a short text may say less still (`max_units_per_text_token`).
            beams: as for `T2CModule.decode`.

        Raises:
            ValueError: a text leaves no room for units.
        """
        import torch

        with torch.inference_mode():
            texts = [self.module.embed(torch.tensor(ids, dtype=torch.long, device=self._device)) for ids in text_ids]
        return self.speak(texts, max_new_units, beams)

    def speak(self, texts: list[Tensor], max_new_units: int = 1024, beams: int = 1) -> list[Decoded]:
        """`generate`, from (length, text_embedding_size) embeddings in the place of the text's."""
        import torch

        results = [Decoded([], 0.0, "end") for _ in texts]
        spoken = [row for row, text in enumerate(texts) if len(text)]
        if not spoken:
            return results
        with torch.inference_mode():
            before, after = (
                self.module.embed(torch.tensor(ids, device=self._device))
                for ids in (self.config.prefix_ids, self.config.middle_ids)
            )
            prompts = [torch.cat([before, texts[row].to(before.dtype), after]) for row in spoken]
        limits = [self.limit(len(texts[row]), max_new_units) for row in spoken]
        for row, result in zip(spoken, self.module.decode(prompts, limits, beams), strict=True):
            results[row] = decoded(result, self.config)
        return results

    def limit(self, text_length: int, max_new_units: int) -> int:
        """How many units a text of this many tokens may take.

        Raises:
            ValueError: its prompt fills the model's positions.
        """
        template = len(self.config.prefix_ids) + len(self.config.middle_ids)
        room = self.config.max_positions - template - text_length
        if room < 1:
            raise ValueError(f"a text of {text_length} tokens leaves no room for units")
        return min(max_new_units, room, math.ceil(self.config.max_units_per_text_token * (text_length + 2)))

    @cached_property
    def _device(self) -> str:
        return str(self.module.lm_head.weight.device)


def decoded(result: Chosen, config: T2CConfig) -> Decoded:
    """Vocabulary ids as units."""
    return Decoded(config.spelled(result.ids), sum(result.logprobs) / len(result.logprobs), result.stop_reason)


def model_digest(path: Path) -> str:
    """What stands for a model directory in a fingerprint: the SHA-256 of its weights."""
    return sha256_of(path / "model.safetensors")


def learned_segments(path: Path) -> SegmentRule | None:
    """Return the rule that a text-to-codec model's directory says its training texts were cut by.

    None where it does not say, or is no such model.
    """
    try:
        return T2CConfig.model_validate_json((path / "config.json").read_bytes()).segments
    except (OSError, ValidationError):
        return None


def looping_tail(ids: list[int]) -> int:
    """How many ids at the end only repeat those before them; 0 where the last `LOOP_WINDOW` ids are not periodic."""
    window = ids[-LOOP_WINDOW:]
    if len(window) < LOOP_WINDOW:
        return 0
    periods = (period for period in range(1, LOOP_PERIOD + 1) if window[period:] == window[:-period])
    period = next(periods, 0)
    return LOOP_WINDOW - period if period else 0


def character_tokenizer() -> Tokenizer:
    """One id a character, lower-cased; whatever is not in `CHARACTERS` is `<unk>`."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocab = {symbol: number for number, symbol in enumerate((*SPECIALS, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Replace("’", "'"), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return tokenizer
