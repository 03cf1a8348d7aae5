"""A small tokenizer for a closed domain: byte-level BPE (Sennrich et al. 2016; on bytes, as in GPT-2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, USER, ASSISTANT, END, AUDIO_PATCH = SPECIALS = ("<pad>", "<user>", "<assistant>", "<end>", "<audio_patch>")
PIECE = r" ?[\p{L}\p{M}\p{N}'’]+|[^\s\p{L}\p{M}\p{N}]|\s+"
"""A word with the space before it; every other mark is separate, so that "." is its own token."""


def byte_level_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> Tokenizer:
    """Train a tokenizer that encodes any text, with case.

    A space is prepended to a text, so that a word is the same token at the start and elsewhere; decoding removes it.

    Args:
        texts: texts of the domain.
        vocab_size: maximum number of ids, including `SPECIALS` and 256 bytes; few or uniform texts give fewer.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return tokenizer
