"""The settings of a Whisper checkpoint's JSON files: spectrogram, text and attention.

Each value that changes a result is honored, or refused with its file and key. What `transcribe` decides itself is left
to its parameters: language, timestamps, lengths and beams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json

if TYPE_CHECKING:
    from whisper.model import Whisper
    from whisper.tokenizer import Tokenizer

SPECTROGRAM = {
    "sampling_rate": 16_000,
    "n_fft": 400,
    "hop_length": 160,
    "chunk_length": 30,
    "padding_value": 0.0,
    "dither": 0.0,
    "do_normalize": False,
}
"""Keys of preprocessor_config.json, and how openai-whisper computes its log-mel spectrogram."""
MEDIAN_FILTER = 7
"""Frames of the median filter over attention, where config.json does not say."""


@dataclass(frozen=True)
class Settings:
    """What a checkpoint says beside its weights. None where it does not say.

    Attributes:
        suppressed: tokens that are never decoded.
        suppressed_first: tokens that no transcript begins with.
        heads: the cross-attention heads that follow the words, as the file has them.
        file: where these three are from.
        median_filter: frames of the filter over their attention.
    """

    suppressed: list[int] | None = None
    suppressed_first: list[int] | None = None
    heads: Any = None
    file: Path | None = None
    median_filter: int = MEDIAN_FILTER

    def never_decoded(self, tokenizer: Tokenizer) -> list[int]:
        """Return the tokens of no transcript: what is suppressed, by default openai-whisper's list, and its tasks'."""
        said = tokenizer.non_speech_tokens if self.suppressed is None else self.suppressed
        tasks = (tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm)
        return sorted({*said, *tasks, tokenizer.no_speech})


def settings_of(directory: Path) -> Settings:
    """Read a directory of CTranslate2 or of transformers; any other place says nothing.

    Raises:
        ModelError: a file is damaged, or a list of tokens is none.
    """
    config = directory / "config.json"
    if not config.is_file():
        return Settings()
    about = read_json(config)
    if (directory / "model.bin").is_file():
        return Settings(
            _tokens(config, about, "suppress_ids"),
            _tokens(config, about, "suppress_ids_begin"),
            about.get("alignment_heads"),
            config,
        )
    generation = directory / "generation_config.json"
    decoding = generation if generation.is_file() else config  # where transformers looks for them
    says = read_json(decoding)
    width = about.get("median_filter_width", MEDIAN_FILTER)
    if not isinstance(width, int) or width < 1 or width % 2 == 0:
        raise ModelError(f"{config}: median_filter_width is {width}, not an odd number of frames: correct it")
    return Settings(
        _tokens(decoding, says, "suppress_tokens"),
        _tokens(decoding, says, "begin_suppress_tokens"),
        says.get("alignment_heads"),
        decoding,
        width,
    )


def _tokens(file: Path, about: Mapping[str, Any], key: str) -> list[int] | None:
    found = about.get(key)
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(each, int) and each >= 0 for each in found):
        raise ModelError(f"{file}: {key} is {str(found)[:60]}, not a list of tokens: correct or remove it")
    return found


def heads_within(settings: Settings, layers: int, heads: int) -> list[tuple[int, int]]:
    """Return the cross-attention heads, as (layer, head), that a checkpoint names; none where it names none.

    Args:
        layers, heads: of its decoder.

    Raises:
        ModelError: they are not heads of that decoder, as those of distilled models may.
    """
    try:
        found = [(int(layer), int(head)) for layer, head in settings.heads or []]
    except (TypeError, ValueError) as error:
        what = str(settings.heads)[:60]
        raise ModelError(f"{settings.file}: alignment_heads is {what}, not pairs of a layer and a head") from error
    for layer, head in found:
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ModelError(
                f"{settings.file}: alignment_heads names {[layer, head]} of a decoder of {layers} layers with {heads} "
                "heads; a distilled model may have its teacher's. Remove the key, and all heads of the upper half are "
                "taken, or align with another model or method"
            )
    return found


def check_spectrogram(directory: Path, mels: int) -> None:
    """Make sure that `preprocessor_config.json`, where there is one, asks for openai-whisper's spectrogram.

    Raises:
        ModelError: it asks for another.
    """
    file = directory / "preprocessor_config.json"
    if not file.is_file():
        return
    about = read_json(file)
    for key, expected in {**SPECTROGRAM, "feature_size": mels}.items():
        if (found := about.get(key, expected)) != expected:
            raise ModelError(
                f"{file}: {key} is {found}, the spectrogram here has {expected}: take a checkpoint of that kind"
            )


def check_decoding(directory: Path, whisper: Whisper, tokenizer: Tokenizer, detects: bool) -> None:
    """Make sure that a directory of transformers or CTranslate2 decodes openai-whisper's tokens by its prompt.

    Args:
        tokenizer: openai-whisper's of that vocabulary.
        detects: True where the language is to be detected.

    Raises:
        ModelError: a file asks for something else.
    """
    settings = settings_of(directory)
    if settings.file is None:
        return
    file, about, many = settings.file, read_json(settings.file), whisper.is_multilingual
    for token in (*(settings.suppressed or ()), *(settings.suppressed_first or ())):
        if token >= whisper.dims.n_vocab:
            raise ModelError(f"{file}: token {token} of {whisper.dims.n_vocab} is suppressed: correct the list")
    for key, expected in (("decoder_start_token_id", tokenizer.sot), ("is_multilingual", many)):
        if (found := about.get(key)) not in (None, expected):
            raise ModelError(
                f"{file}: {key} is {found}, with {whisper.dims.n_vocab} tokens it is {expected}: correct it"
            )
    forced = [pair[1] for pair in about.get("forced_decoder_ids") or [] if isinstance(pair, list) and len(pair) == 2]
    if about.get("task") == "translate" or tokenizer.translate in forced:
        raise ModelError(f"{file}: it translates, and a transcript is in the language spoken: take another")
    if many and about.get("lang_to_id"):
        _check_languages(file, about["lang_to_id"], tokenizer, detects)


def _check_languages(file: Path, languages: Any, tokenizer: Tokenizer, detects: bool) -> None:
    ours = dict(zip(tokenizer.all_language_codes, tokenizer.all_language_tokens, strict=True))
    theirs = {str(name).strip("<|>"): token for name, token in dict(languages).items()}
    for name, token in theirs.items():
        if ours.get(name) != token:
            raise ModelError(f"{file}: lang_to_id has {token} for {name}, openai-whisper {ours.get(name)}: correct it")
    if detects and len(theirs) < len(ours):
        raise ModelError(
            f"{file}: lang_to_id knows {len(theirs)} of the {len(ours)} languages among which one is detected: set "
            "`language`"
        )
