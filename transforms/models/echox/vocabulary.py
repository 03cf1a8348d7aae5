"""What a checkpoint's tokenizer files say beside text: special tokens, and how the unit decoder's ids are spelled.

The authors' training code adds `<audio_patch>` to the language model's tokenizer and, from `vocab_size` on, a token for
each id of the unit decoder: `<|unit_81|>`, or a word of units, `<|unit_837_81_194|>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNIT = re.compile(r"<\|unit_(.*)\|>")
WORD_MARK = "▁"


def added_tokens(path: Path) -> dict[str, int]:
    """Ids of the tokens that were added to a checkpoint's tokenizer; none where it has no `tokenizer.json`.

    Raises:
        ModelError: the file is no tokenizer's.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        return {}
    try:
        return {str(token["content"]): int(token["id"]) for token in read_json(file).get("added_tokens", [])}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: added_tokens: not a tokenizer ({error!r}); copy it again") from error


def special_token(path: Path, key: str, tokens: Mapping[str, int]) -> int | None:
    """Id of the token that `tokenizer_config.json` names; None where it names none.

    Args:
        key: such as `eos_token`.
        tokens: of `added_tokens`.

    Raises:
        ModelError: `tokenizer.json` lacks the token.
    """
    file = path / "tokenizer_config.json"
    named = read_json(file).get(key) if file.is_file() and tokens else None
    content = named.get("content") if isinstance(named, dict) else named
    if content is None:
        return None
    if content not in tokens:
        raise ModelError(f"{file}: {key} {content!r} is not among the added tokens of tokenizer.json; copy both again")
    return tokens[content]


def unit_spellings(
    path: Path, tokens: Mapping[str, int], vocab_size: int, unit_vocab_size: int, units: int
) -> dict[int, str] | None:
    """Units in each id that the unit decoder may emit; None where unit k is `vocab_size` + k.

    Args:
        tokens: of `added_tokens`.
        vocab_size, unit_vocab_size: ids of the language model, and of the decoder after them.
        units: units are integers below this.

    Raises:
        ModelError: the decoder has fewer ids, or another token's id is one of its own.
    """
    file = path / "tokenizer.json"
    found = {number: match[1] for token, number in tokens.items() if (match := UNIT.fullmatch(token))}
    others = [token for token, number in tokens.items() if number >= vocab_size and number not in found]
    if others:
        raise ModelError(f"{file}: {others[0]!r} has an id from vocab_size {vocab_size} on, where only units may stand")
    if found and max(found) >= vocab_size + unit_vocab_size:
        raise ModelError(
            f"{file}: tokens of units have ids up to {max(found)}; config.json has {vocab_size} + {unit_vocab_size} "
            "(vocab_size, unit_vocab_size): copy both files of one checkpoint"
        )
    single = all(spelling == str(number - vocab_size) for number, spelling in found.items())
    if not found or (single and len(found) >= min(units, unit_vocab_size)):
        return None
    # The release reads the digits of all tokens in a row, or with word marks of what they spell without their frames.
    frame = "" if any(WORD_MARK in spelling for spelling in found.values()) else "_"
    return {number: frame + spelling for number, spelling in sorted(found.items())}


def text_tokenizer(path: Path, vocab_size: int) -> Tokenizer | None:
    """The language model's tokenizer, without the tokens of units; None where the checkpoint has none.

    Raises:
        ModelError: the file is no tokenizer's, or has more ids than the language model.
    """
    from tokenizers import Tokenizer

    file = path / "tokenizer.json"
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        added = [token for token in content.get("added_tokens", []) if not UNIT.fullmatch(token["content"])]
        tokenizer = Tokenizer.from_str(json.dumps(content | {"added_tokens": added}))
    except Exception as error:  # tokenizers raises Exception itself
        raise ModelError(f"{file}: not a tokenizer ({error}); copy it again") from error
    if tokenizer.get_vocab_size() > vocab_size:
        raise ModelError(f"{file}: has {tokenizer.get_vocab_size()} ids, more than vocab_size {vocab_size}")
    moved = [token["content"] for token in added if tokenizer.token_to_id(token["content"]) != token["id"]]
    if moved:
        raise ModelError(f"{file}: {moved[0]!r} was added after tokens of units, which have to be the last")
    return tokenizer
