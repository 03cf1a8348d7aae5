"""Contents of a checkpoint's tokenizer files: special tokens, and the spelling of the unit decoder's ids.

The authors' training code adds `<audio_patch>` to the language model's tokenizer and, from `vocab_size` on, a token for
each id of the unit decoder: `<|unit_81|>`, or a unit word, `<|unit_837_81_194|>`.
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
    """Return the ids of tokens added to a checkpoint's tokenizer; empty if it has no `tokenizer.json`.

    Raises:
        ModelError: the file is not a tokenizer.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        return {}
    try:
        return {str(token["content"]): int(token["id"]) for token in read_json(file).get("added_tokens", [])}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: added_tokens: not a tokenizer ({error!r}); copy it again") from error


def special_token(path: Path, key: str, tokens: Mapping[str, int]) -> int | None:
    """Return the id of the token that `tokenizer_config.json` names, or None.

    Args:
        key: such as `eos_token`.
        tokens: the result of `added_tokens`.

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
    """Return the units in each id that the unit decoder may emit; None if unit k is `vocab_size` + k.

    Args:
        tokens: the result of `added_tokens`.
        vocab_size, unit_vocab_size: number of ids of the language model, and of the decoder after them.
        units: number of units.

    Raises:
        ModelError: the decoder has fewer ids, or another token has one of its ids.
    """
    file = path / "tokenizer.json"
    found = {number: match[1] for token, number in tokens.items() if (match := UNIT.fullmatch(token))}
    others = [token for token, number in tokens.items() if number >= vocab_size and number not in found]
    if others:
        raise ModelError(f"{file}: {others[0]!r} has an id from vocab_size {vocab_size} on; these are for units")
    if found and max(found) >= vocab_size + unit_vocab_size:
        raise ModelError(
            f"{file}: unit tokens have ids up to {max(found)}, but config.json has {vocab_size} + {unit_vocab_size} "
            "(vocab_size, unit_vocab_size): copy both files of one checkpoint"
        )
    single = all(spelling == str(number - vocab_size) for number, spelling in found.items())
    if not found or (single and len(found) >= min(units, unit_vocab_size)):
        return None
    # The release parses the digits of all tokens in a row, or with word marks the spelling without `<|unit_` and `|>`.
    frame = "" if any(WORD_MARK in spelling for spelling in found.values()) else "_"
    return {number: frame + spelling for number, spelling in sorted(found.items())}


def text_tokenizer(path: Path, vocab_size: int) -> Tokenizer | None:
    """Return the language model's tokenizer without unit tokens; None if the checkpoint has none.

    Raises:
        ModelError: the file is not a tokenizer, or has more ids than the language model.
    """
    from tokenizers import Tokenizer

    file = path / "tokenizer.json"
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        added = [token for token in content.get("added_tokens", []) if not UNIT.fullmatch(token["content"])]
        tokenizer = Tokenizer.from_str(json.dumps(content | {"added_tokens": added}))
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"{file}: not a tokenizer ({error}); copy it again") from error
    if tokenizer.get_vocab_size() > vocab_size:
        raise ModelError(f"{file}: has {tokenizer.get_vocab_size()} ids, more than vocab_size {vocab_size}")
    moved = [token["content"] for token in added if tokenizer.token_to_id(token["content"]) != token["id"]]
    if moved:
        raise ModelError(f"{file}: {moved[0]!r} was added after the unit tokens, which must be the last")
    return tokenizer
