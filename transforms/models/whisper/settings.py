"""Settings in a Whisper checkpoint's JSON files: spectrogram, text and attention.

Each value that changes a result is either applied, or rejected with its file and key. Language, timestamps, lengths and
beams are ignored, since the parameters of `transcribe` set them.
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
"""Keys of preprocessor_config.json, and openai-whisper's values for its log-mel spectrogram."""
MEDIAN_FILTER = 7
"""Frames of the median filter over attention, if config.json does not set it."""


@dataclass(frozen=True)
class Settings:
    """Settings of a checkpoint, apart from its weights. None if not set.

    Attributes:
        suppressed: tokens that are never decoded.
        suppressed_first: tokens that a transcript must not begin with.
        heads: the cross-attention heads used for alignment, as in the file.
        file: the file with these three settings.
        median_filter: frames of the median filter over the heads' attention.
    """

    suppressed: list[int] | None = None
    suppressed_first: list[int] | None = None
    heads: Any = None
    file: Path | None = None
    median_filter: int = MEDIAN_FILTER

    def never_decoded(self, tokenizer: Tokenizer) -> list[int]:
        """Return tokens that are never decoded: suppressed ones (default: openai-whisper's list) and task tokens."""
        suppressed = tokenizer.non_speech_tokens if self.suppressed is None else self.suppressed
        tasks = (tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm)
        return sorted({*suppressed, *tasks, tokenizer.no_speech})


def settings_of(directory: Path) -> Settings:
    """Load the settings of a CTranslate2 or transformers directory; any other path has none.

    Raises:
        ModelError: a file is damaged, or has an invalid list of tokens.
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
    decoding = generation if generation.is_file() else config  # as transformers does
    options = read_json(decoding)
    width = about.get("median_filter_width", MEDIAN_FILTER)
    if not isinstance(width, int) or width < 1 or width % 2 == 0:
        raise ModelError(f"{config}: median_filter_width is {width}, not an odd number of frames: correct it")
    return Settings(
        _tokens(decoding, options, "suppress_tokens"),
        _tokens(decoding, options, "begin_suppress_tokens"),
        options.get("alignment_heads"),
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
    """Return the cross-attention heads that a checkpoint names, as (layer, head); empty if it names none.

    Args:
        layers, heads: size of the decoder.

    Raises:
        ModelError: the decoder lacks such a head, which happens with distilled models.
    """
    try:
        found = [(int(layer), int(head)) for layer, head in settings.heads or []]
    except (TypeError, ValueError) as error:
        what = str(settings.heads)[:60]
        raise ModelError(f"{settings.file}: alignment_heads is {what}, not pairs of a layer and a head") from error
    for layer, head in found:
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ModelError(
                f"{settings.file}: alignment_heads names {[layer, head]}, but the decoder has {layers} layers with "
                f"{heads} heads; a distilled model may list its teacher's. Remove the key to use all heads of the "
                "upper half, or align with another model or method"
            )
    return found


def check_spectrogram(directory: Path, mels: int) -> None:
    """Check that `preprocessor_config.json`, if there is one, describes openai-whisper's spectrogram.

    Raises:
        ModelError: it describes another.
    """
    file = directory / "preprocessor_config.json"
    if not file.is_file():
        return
    about = read_json(file)
    for key, expected in {**SPECTROGRAM, "feature_size": mels}.items():
        if (found := about.get(key, expected)) != expected:
            raise ModelError(f"{file}: {key} is {found}, but must be {expected}: use another checkpoint")


def check_decoding(directory: Path, whisper: Whisper, tokenizer: Tokenizer, detects: bool) -> None:
    """Check that a transformers or CTranslate2 directory decodes openai-whisper's tokens with its prompt.

    Args:
        tokenizer: openai-whisper's tokenizer for that vocabulary.
        detects: True if the language is to be detected.

    Raises:
        ModelError: a file requires something else.
    """
    settings = settings_of(directory)
    if settings.file is None:
        return
    file, about, many = settings.file, read_json(settings.file), whisper.is_multilingual
    for token in (*(settings.suppressed or ()), *(settings.suppressed_first or ())):
        if token >= whisper.dims.n_vocab:
            raise ModelError(
                f"{file}: suppresses token {token}, but there are only {whisper.dims.n_vocab}: correct the list"
            )
    for key, expected in (("decoder_start_token_id", tokenizer.sot), ("is_multilingual", many)):
        if (found := about.get(key)) not in (None, expected):
            raise ModelError(
                f"{file}: {key} is {found}, but a model with {whisper.dims.n_vocab} tokens has {expected}: correct it"
            )
    forced = [pair[1] for pair in about.get("forced_decoder_ids") or [] if isinstance(pair, list) and len(pair) == 2]
    if about.get("task") == "translate" or tokenizer.translate in forced:
        raise ModelError(f"{file}: the model translates, but transcripts must be in the spoken language: use another")
    if many and about.get("lang_to_id"):
        _check_languages(file, about["lang_to_id"], tokenizer, detects)


def _check_languages(file: Path, languages: Any, tokenizer: Tokenizer, detects: bool) -> None:
    ours = dict(zip(tokenizer.all_language_codes, tokenizer.all_language_tokens, strict=True))
    theirs = {str(name).strip("<|>"): token for name, token in dict(languages).items()}
    for name, token in theirs.items():
        if ours.get(name) != token:
            raise ModelError(
                f"{file}: lang_to_id has {token} for {name}, but openai-whisper has {ours.get(name)}: correct it"
            )
    if detects and len(theirs) < len(ours):
        raise ModelError(
            f"{file}: lang_to_id has only {len(theirs)} of the {len(ours)} languages, too few for language detection: "
            "set `language`"
        )
