"""Generate plain English to train a text-to-codec model and a unit reader on: sentences of WordNet, by a seed.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet
    python -m echo_targets.jobs.corpora.plain_english wordnet/usr/share/wordnet OUT.jsonl [--hours 30] [--seed 0]

WordNet 3.0 (Princeton University; free for any use with its notice) has 48,000 examples and 117,000 definitions, in
words of every kind, with names, quotations and lists. A line joins one to four of them to 3 to 12 seconds of speech;
numbers are written as words. About a fiftieth of the sentences belongs to the split `test`; the others never contain
one of these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from echo_targets.transforms.verbalize import verbalize

CHARS_PER_SECOND = 15.0
SHORTEST, LONGEST = 45, 180
"""Characters of a line."""
TEST_EVERY = 50
PARTS = ("noun", "verb", "adj", "adv")
OPENINGS = (
    "{0}, {1}.",
    "{0} means {1}.",
    "The word {0} means {1}.",
    "What is {0}? It is {1}.",
    "By {0} we mean {1}.",
    "{0}: {1}.",
)
UNSPOKEN = re.compile(r"[^A-Za-z '.,?!;:-]")


def sentences(wordnet: Path) -> Iterator[str]:
    """Yield examples and definitions as sentences, in the order of the files.

    Args:
        wordnet: folder with `data.noun` and so on.

    Raises:
        FileNotFoundError: a file is missing.
    """
    for part in PARTS:
        for line in (wordnet / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.strip() or line.startswith(" "):  # the license
                continue
            synset, _, gloss = line.partition(" | ")
            lemma = synset.split()[4].replace("_", " ")
            definition, *examples = re.split(r';?\s*"', gloss.strip())
            chosen = OPENINGS[int(hashlib.sha256(synset.encode()).hexdigest(), 16) % len(OPENINGS)]
            found = [chosen.format(lemma, definition), *(each.rstrip('"') for each in examples)]
            yield from filter(None, map(sentence, found))


def sentence(text: str) -> str | None:
    """Return a text as a sentence; None if it has letters that the models do not know, or is too short or too long."""
    plain = re.sub(r"\([^()]*\)", " ", text).replace("`", "'").replace("...", ", ").replace("--", ", ")
    plain = " ".join(verbalize(plain, "en").split()).replace(" ,", ",").replace(" .", ".").strip(" ,;:-'")
    if not 12 <= len(plain) <= LONGEST or UNSPOKEN.search(plain):
        return None
    return plain[0].upper() + plain[1:] + ("" if plain[-1] in ".?!" else ".")


def is_test(text: str) -> bool:
    """Return True if a sentence belongs to the split `test`."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % TEST_EVERY == 0


def lines(found: list[str], hours: float, seed: int) -> Iterator[dict[str, str]]:
    """Yield lines of a spoken source: sentences in random order, joined to 45 to 180 characters, up to some hours."""
    for split, share in (("test", 1 / TEST_EVERY), ("train", 1 - 1 / TEST_EVERY)):
        chosen = [text for text in dict.fromkeys(found) if is_test(text) == (split == "test")]
        rng = random.Random(f"{seed} {split}")
        rng.shuffle(chosen)
        left, number = hours * share * 3600 * CHARS_PER_SECOND, 0
        while chosen and left > 0:
            text, wanted = chosen.pop(), rng.randint(SHORTEST, LONGEST)
            while chosen and len(text) + 1 + len(chosen[-1]) <= wanted:
                text += " " + chosen.pop()
            left, number = left - len(text), number + 1
            yield {"id": f"english-{split}-{number:06d}", "role": "assistant", "split": split, "text": text}


def main(wordnet: Path, out: Path, hours: float, seed: int) -> None:
    """Write the lines to a JSON Lines file."""
    made = list(lines(list(sentences(wordnet)), hours, seed))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(line) + "\n" for line in made))
    spoken = sum(len(line["text"]) for line in made) / CHARS_PER_SECOND / 3600
    print(f"{out}: {len(made):,} lines, about {spoken:.1f} h")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wordnet", type=Path, help="folder with data.noun, data.verb, data.adj and data.adv")
    parser.add_argument("out", type=Path, help="JSON Lines file to write")
    parser.add_argument("--hours", type=float, default=30.0, help="about how much speech (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    given = parser.parse_args()
    main(given.wordnet, given.out, given.hours, given.seed)
