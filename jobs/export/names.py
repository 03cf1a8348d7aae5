"""Names of files from keys and splits, which are data: any text, of any length."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
MAPPED = re.compile(r".*-[0-9a-f]{32}")
UNSAFE = re.compile(r"[^A-Za-z0-9_]+")
KEPT = 60
RESERVED = ("all",)
"""Names that `datasets` does not allow for a split."""


def safe_name(text: str) -> str:
    """Return a file name that no other text has: letters, digits, `_` and `-`, at most 100 characters.

    Plain text is its own name. Any other is shortened and ends in its digest, which no plain name does.

    >>> safe_name("call-7-q"), safe_name("../7 é")
    ('call-7-q', '7-fb10fa18362b2d84c37648ddf06a8a0e')
    """
    if PLAIN.fullmatch(text) and not MAPPED.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{UNSAFE.sub('_', text).strip('_')[:KEPT] or 'x'}-{digest}"


def hub_splits(splits: Iterable[str]) -> dict[str, str]:
    """Return names that `datasets` accepts for splits, by split: letters, digits and `_`, each once.

    >>> hub_splits(["train", "test-clean", "train"])
    {'train': 'train', 'test-clean': 'test_clean'}
    """
    names: dict[str, str] = {}
    for split in sorted(
        set(splits), key=lambda split: (UNSAFE.sub("_", split) != split, split)
    ):  # plain ones keep theirs
        name = UNSAFE.sub("_", safe_name(split))
        while name in (*names.values(), *RESERVED):
            name += "_"
        names[split] = name
    return names
