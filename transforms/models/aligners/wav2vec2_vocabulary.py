"""The vocabulary of transformers' `Wav2Vec2CTCTokenizer`, from `vocab.json` and the tokenizer's other files."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.languages import code_of
from echo_targets.transforms.models.aligners.vocabulary import Vocabulary
from echo_targets.transforms.models.checkpoints.files import read_json

FILES = ("vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that shape the letters; only the first one is required."""
TOKENIZERS = ("Wav2Vec2CTCTokenizer", "Wav2Vec2Tokenizer")
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
"""Special tokens, and their defaults if no file names them."""


@dataclass(frozen=True)
class LanguageVocabulary:
    """A vocabulary, and its language in a multilingual checkpoint (MMS).

    Attributes:
        letters: the letters.
        language: the checkpoint's own name of the language, such as `fra`; None if it has only one.
        is_default: True if the checkpoint's main weights are those of this language.
    """

    letters: Vocabulary
    language: str | None
    is_default: bool


def vocabulary_files(folder: Path) -> list[Path]:
    """Return the existing files of `FILES`."""
    return [path for name in FILES if (path := folder / name).is_file()]


def read_vocabulary(folder: Path, language: str) -> LanguageVocabulary:
    """Load the letters of a checkpoint.

    Args:
        folder: the checkpoint's directory.
        language: the text's language, which selects one of a multilingual checkpoint.

    Raises:
        ModelError: files are missing or damaged, the tokens are not letters, or the language is unknown.
    """
    path = folder / "vocab.json"
    config = read_json(folder / "config.json")
    written = _optional(folder / "tokenizer_config.json")
    _check_tokenizer(folder, [config.get("tokenizer_class"), written.get("tokenizer_class")], written)
    if not path.is_file():
        raise ModelError(
            f"{path} is missing: it lists the letters; to align, use a model of letters, and copy all of its files"
        )
    tokens, chosen = read_json(path), None
    if tokens and all(isinstance(each, dict) for each in tokens.values()):
        chosen = _language(path, tokens, language)
        tokens = tokens[chosen]
    if not all(isinstance(number, int) for number in tokens.values()):
        raise ModelError(f"{path}: not letters and their ids; copy the checkpoint again")
    tokens = {**_optional(folder / "added_tokens.json"), **tokens}
    special = _special(folder, written)
    delimiter = _content(written.get("word_delimiter_token", "|"))
    blank = _blank(folder, config, tokens, special["pad_token"])
    letters = {
        unicodedata.normalize("NFC", token) if len(token) > 1 else token: number
        for token, number in tokens.items()
        if token not in special.values() and token != delimiter and _spells(token)
    }
    if written.get("do_lower_case"):  # the tokenizer converts text to upper case
        letters = {token: number for token, number in letters.items() if token.upper() not in letters.keys() - {token}}
    border = tokens.get(delimiter) if delimiter else None
    return LanguageVocabulary(
        Vocabulary(path, letters, blank, border), chosen, chosen is None or written.get("target_lang") == chosen
    )


def _check_tokenizer(folder: Path, classes: list[Any], written: dict[str, Any]) -> None:
    named = [name for name in classes if name is not None]
    if "do_phonemize" in written or any("Phoneme" in str(name) for name in named):
        raise ModelError(f"{folder}: its tokens are sounds, which can't spell words; to align, use a model of letters")
    for name in named:
        if name not in TOKENIZERS:
            raise ModelError(f"{folder}: its tokenizer is {name}; to align, use a model of letters ({TOKENIZERS[0]})")


def _language(path: Path, vocabularies: dict[str, Any], language: str) -> str:
    """Return a multilingual vocabulary's name of a language."""
    wanted = str(code_of(language)).partition("-")[0]
    found = [name for name in vocabularies if code_of(name.partition("-")[0]) == wanted]
    found = [language] if language in vocabularies else found
    if len(found) != 1 or Path(found[0]).name != found[0]:
        known = sorted(found or vocabularies)
        more = f" and {len(known) - 10} more" if len(known) > 10 else ""
        raise ModelError(
            f"{path} has the letters of {', '.join(known[:10])}{more}, but align.language is {language!r}; "
            "set align.language to one of them"
        )
    return found[0]


def _special(folder: Path, written: dict[str, Any]) -> dict[str, str | None]:
    named = {**_optional(folder / "special_tokens_map.json"), **written}
    return {key: _content(named.get(key, default)) for key, default in SPECIAL.items()}


def _blank(folder: Path, config: dict[str, Any], tokens: dict[str, int], pad: str | None) -> int:
    """Return the id of CTC's blank: the padding token, which transformers uses in training and decoding."""
    blank = config.get("pad_token_id", 0)
    if not isinstance(blank, int):
        raise ModelError(f"{folder}/config.json: pad_token_id is {blank!r}; set it to the id of CTC's blank")
    if pad in tokens and tokens[pad] != blank:
        raise ModelError(
            f"{folder}/config.json: pad_token_id, CTC's blank, is {blank}, but {pad!r} of vocab.json is {tokens[pad]}; "
            "write the id that the model was trained with into both"
        )
    return blank


def _spells(token: str) -> bool:
    """Return True if a token is one or more letters of a text, not a special token such as `[UNK]` or `<ctc_blank>`."""
    bracketed = len(token) > 2 and token[0] + token[-1] in ("<>", "[]")
    return not bracketed and (len(token) == 1 or any(character.isalnum() for character in token))


def _content(token: Any) -> str | None:
    """Return a token's text; the token is a string, or a dictionary of its properties."""
    return token.get("content") if isinstance(token, dict) else token


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
