"""The list of unit tokenizer kinds. The kind is chosen from the codebook's files."""

from __future__ import annotations

from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.tokenizers.base import TokenizerSpec, UnitTokenizer
from echo_targets.transforms.models.tokenizers.codec import Codec
from echo_targets.transforms.models.tokenizers.cosyvoice import S3Tokenizer
from echo_targets.transforms.models.tokenizers.kmeans import KmeansTokenizer

KINDS: tuple[type[UnitTokenizer], ...] = (Codec, S3Tokenizer, KmeansTokenizer)
"""In order of precedence. k-means is last, since its files may have any name."""


def open_tokenizer(
    codebook: str, encoder: str, layer: int | None = None, num_codebooks: int | None = None
) -> UnitTokenizer:
    """Return the tokenizer of a codebook, not loaded.

    Args:
        codebook: a file or a directory, or `embedded:NAME`.
        encoder, layer, num_codebooks: as in `TokenizerSpec`.

    Raises:
        ModelError: the codebook can't be used, or not with these parameters.
    """
    named = TokenizerSpec(asset(codebook), encoder, layer, num_codebooks)
    kind = next(kind for kind in KINDS if kind.can_load(named.codebook))
    return kind(named)
