"""A small tokenizer for a closed domain: byte-level BPE (Sennrich et al. 2016; on bytes, as in GPT-2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, USER, ASSISTANT, END, AUDIO_PATCH = SPECIALS = ("<pad>", "<user>", "<assistant>", "<end>", "<audio_patch>")
PIECE = r" ?[\p{L}\p{M}\p{N}'’]+|[^\s\p{L}\p{M}\p{N}]|\s+"
"""A word with the space before it; each other mark alone, so that "." is a token of its own."""


def byte_level_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> Tokenizer:
    """Trains a tokenizer that spells any text, case kept.

    A space is put before a text, so that a word is the same token first and elsewhere; decoding takes it away.

    Args:
        texts: what it is to spell well.
        vocab_size: the most ids, `SPECIALS` and the 256 bytes among them; few or uniform texts make fewer.
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
