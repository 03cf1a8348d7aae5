"""Text to codec: a small decoder that generates the speech units of a text. Its directory has three files.

`config.json`, `model.safetensors` (tensor names as in EchoX's `unit_translator.*`; float16 on disk is converted to
float32) and `tokenizer.json` (Hugging Face `tokenizers`).
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.tensors import check_tensors, write_tensors
from echo_targets.transforms.models.t2c.config import Chosen, Decoded, T2CConfig
from echo_targets.transforms.segments.rule import SegmentRule

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from echo_targets.transforms.models.t2c.network import T2CModule

CHARACTERS = " abcdefghijklmnopqrstuvwxyz'.,?!-0123456789"
SPECIALS = ("<pad>", "<unk>", "<user>", "<assistant>", "<end>")


class T2C:
    """A text-to-codec model, ready to decode.

    Attributes:
        config: sizes and template.
        module: the network, float32, in evaluation mode.
        tokenizer: encodes text to ids, with offsets into the original text.
    """

    def __init__(self, config: T2CConfig, module: T2CModule, tokenizer: Tokenizer) -> None:
        self.config, self.module, self.tokenizer = config, module, tokenizer

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> T2C:
        """Load a model directory.

        Raises:
            ModelError: a file is missing or damaged, or tensors are missing, unexpected, or have another shape.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        from echo_targets.transforms.models.t2c.network import T2CModule

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
        """Write the model directory, in float16 if `half`."""
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(self.config.model_dump_json(indent=1) + "\n")
        self.tokenizer.save(str(path / "tokenizer.json"))
        write_tensors(path / "model.safetensors", self.module.state_dict(), half)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without the template."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def generate(self, text_ids: list[list[int]], max_new_units: int = 1024, beams: int = 1) -> list[Decoded]:
        """Return units for each text. A row's result does not depend on its neighbors.

        Args:
            text_ids: ids of each text; an empty text gives no units.
            max_new_units: maximum per row; a short text has a lower limit (`max_units_per_text_token`).
            beams: as for `T2CModule.decode`.

        Raises:
            ValueError: a text leaves no room for units.
        """
        import torch

        with torch.inference_mode():
            texts = [self.module.embed(torch.tensor(ids, dtype=torch.long, device=self._device)) for ids in text_ids]
        return self.speak(texts, max_new_units, beams)

    def speak(self, texts: list[Tensor], max_new_units: int = 1024, beams: int = 1) -> list[Decoded]:
        """Like `generate`, but from (length, text_embedding_size) embeddings in place of the text's."""
        import torch

        known = self.config.frames or self.config.max_duration
        results = [Decoded([], 0.0, "end", [] if known else None) for _ in texts]
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
        """Return how many units a text of `text_length` tokens may take.

        Raises:
            ValueError: the prompt leaves no positions.
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
    """Convert vocabulary ids to units."""
    units, durations = config.spelled(result.ids), result.durations
    if config.frames:
        runs = [(unit, len(list(frames))) for unit, frames in groupby(units)]
        units, durations = [unit for unit, _ in runs], [count for _, count in runs]
    return Decoded(units, sum(result.logprobs) / len(result.logprobs), result.stop_reason, durations)


def is_t2c(path: Path) -> bool:
    """Return True if a model's directory is a text-to-codec model's. Reads only its config file.

    Raises:
        ModelError: the directory has no readable `config.json`.
    """
    try:
        config = json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} has no readable config.json: not a model ({error})") from error
    return not isinstance(config, dict) or "text_vocab_size" in config


def model_digest(path: Path) -> str:
    """Return a model directory's digest: the SHA-256 of its weights."""
    return sha256_of(path / "model.safetensors")


def learned_segments(path: Path) -> SegmentRule | None:
    """Return the rule that cut a text-to-codec model's training texts, as stated in its directory.

    Returns None if it is not stated, or if this is no such model.
    """
    try:
        return T2CConfig.model_validate_json((path / "config.json").read_bytes()).segments
    except (OSError, ValidationError):
        return None


def character_tokenizer() -> Tokenizer:
    """Return a tokenizer with one id per lower-case character; those outside `CHARACTERS` become `<unk>`."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocab = {symbol: number for number, symbol in enumerate((*SPECIALS, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Replace("’", "'"), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return tokenizer
