"""Generate plain English to train a text-to-codec model and a unit reader on, from Debian's packages, by a seed.

    apt-get download wordnet-base bible-kjv bible-kjv-text r-cran-janeaustenr
    for package in *.deb; do dpkg-deb -x $package unpacked; done
    python -m echo_targets.jobs.corpora.plain_english unpacked OUT.jsonl [--hours 24] [--seed 0] [--without TEXTS.jsonl]

- WordNet 3.0 (Princeton University; free for any use with its notice): 117,000 definitions and 48,000 examples, in
  words of every kind.
- Six novels by Jane Austen, and the King James Bible, both in the public domain: long sentences, dialogue, names.

A line joins sentences of one source to 3 to 12 seconds of speech; numbers are written as words. Half of the lines
have no punctuation and no capitals, as transcripts have. About a fiftieth of the sentences belongs to the split `test`;
the others never contain one of these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from echo_targets.transforms.verbalize import verbalize

CHARS_PER_SECOND = 15.0
SHORTEST, LONGEST = 45, 180
"""Characters of a line."""
TEST_EVERY = 50
SHARES = {"wordnet": 0.4, "austen": 0.4, "bible": 0.2}
BARE = 0.5
"""Share of the lines without punctuation and capitals."""
SHARED_WORDS = 6
"""A line that has this many words in a row of an excluded text is left out."""
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
SENTENCE = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.?!])['\"]?\s+(?=['\"]?[A-Z])")
CLAUSE = re.compile(r"(?<=[;:])\s+|\s*--\s*")


def wordnet(folder: Path) -> Iterator[str]:
    """Yield examples and definitions, in the order of the files.

    Args:
        folder: folder with `data.noun` and so on.

    Raises:
        FileNotFoundError: a file is missing.
    """
    for part in PARTS:
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.strip() or line.startswith(" "):  # the license
                continue
            synset, _, gloss = line.partition(" | ")
            lemma = synset.split()[4].replace("_", " ")
            definition, *examples = re.split(r';?\s*"', gloss.strip())
            chosen = OPENINGS[int(hashlib.sha256(synset.encode()).hexdigest(), 16) % len(OPENINGS)]
            yield from (chosen.format(lemma, definition), *(each.rstrip('"') for each in examples))


def austen(folder: Path) -> Iterator[str]:
    """Yield the sentences of the novels in the R package `janeaustenr`, in clauses where a sentence is long.

    Args:
        folder: folder with `Rdata.rdx` and `Rdata.rdb`: an index, and R's compressed objects one after the other.
    """
    import rdata

    packed = (folder / "Rdata.rdb").read_bytes()
    places = rdata.read_rds(folder / "Rdata.rdx")["variables"]
    for start, length in (map(int, places[name]) for name in sorted(places)):
        parsed = rdata.parser.parse_data(zlib.decompress(packed[start + 4 : start + length]))
        book = "\n".join(map(str, rdata.conversion.convert(parsed)))
        for paragraph in re.split(r"\n\s*\n", book):
            yield from prose(" ".join(paragraph.replace("_", "").split()))


def bible(folder: Path) -> Iterator[str]:
    """Yield the verses of the King James Bible, in clauses where a verse is long.

    Args:
        folder: folder with `bin/bible` and `lib/bible.data`.
    """
    command: list[str | Path] = [folder / "bin" / "bible", "-f", "-p", folder / "lib", "Gen1:1-Rev22:21"]
    for verse in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        yield from prose(verse.partition(" ")[2])


def prose(paragraph: str) -> Iterator[str]:
    """Yield a paragraph's sentences; one that is too long for a line in its clauses."""
    for each in SENTENCE.split(paragraph):
        plain = each.replace('"', "")
        yield from (plain,) if len(plain) <= LONGEST else CLAUSE.split(plain)


def sentence(text: str) -> str | None:
    """Return a text as a sentence; None if it has letters that the models do not know, or is too short or too long."""
    plain = re.sub(r"\([^()]*\)", " ", text).replace("`", "'").replace("...", ", ").replace("--", ", ")
    plain = re.sub(r" (?=[.,;:!?])", "", " ".join(verbalize(plain, "en").split())).strip(" ,;:-'")
    if not 12 <= len(plain) <= LONGEST or UNSPOKEN.search(plain):
        return None
    return plain[0].upper() + plain[1:] + ("" if plain[-1] in ".?!" else ".")


def bare(text: str) -> str:
    """Return a text without punctuation and capitals."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def is_test(text: str) -> bool:
    """Return True if a sentence belongs to the split `test`."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % TEST_EVERY == 0


def lines(sources: dict[str, list[str]], hours: float, seed: int) -> Iterator[dict[str, str]]:
    """Yield lines of a spoken source: sentences of one source in random order, joined to 45 to 180 characters.

    Args:
        sources: sentences by the name of their source, one of `SHARES`.
        hours: about how much speech, of all sources together; a source ends where its sentences do.
        seed: seed of the order.
    """
    for split, share in (("test", 1 / TEST_EVERY), ("train", 1 - 1 / TEST_EVERY)):
        for name, found in sources.items():
            chosen = [text for text in dict.fromkeys(found) if is_test(text) == (split == "test")]
            rng = random.Random(f"{seed} {split} {name}")
            rng.shuffle(chosen)
            left, number = hours * share * SHARES[name] * 3600 * CHARS_PER_SECOND, 0
            while chosen and left > 0:
                text, wanted = chosen.pop(), rng.randint(SHORTEST, LONGEST)
                while chosen and len(text) + 1 + len(chosen[-1]) <= wanted:
                    text += " " + chosen.pop()
                left, number = left - len(text), number + 1
                written = bare(text) if rng.random() < BARE else text
                yield {"id": f"{name}-{split}-{number:06d}", "role": "assistant", "split": split, "text": written}


def shares_words(text: str, excluded: set[tuple[str, ...]]) -> bool:
    """Return True if a text has `SHARED_WORDS` words in a row that are among the excluded ones."""
    return not excluded.isdisjoint(_grams(text))


def _grams(text: str) -> Iterable[tuple[str, ...]]:
    words = bare(text).split()
    return zip(*(words[start:] for start in range(SHARED_WORDS)), strict=False)


def main(unpacked: Path, out: Path, hours: float, seed: int, without: Path | None) -> None:
    """Write the lines to a JSON Lines file."""
    usr = unpacked / "usr"
    found = {
        "wordnet": wordnet(usr / "share" / "wordnet"),
        "austen": austen(usr / "lib" / "R" / "site-library" / "janeaustenr" / "data"),
        "bible": bible(usr),
    }
    excluded: set[tuple[str, ...]] = set()
    for line in without.read_text().splitlines() if without else ():
        excluded.update(_grams(json.loads(line)["text"]))
    sources = {
        name: [text for text in filter(None, map(sentence, texts)) if not shares_words(text, excluded)]
        for name, texts in found.items()
    }
    made = list(lines(sources, hours, seed))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(line) + "\n" for line in made))
    spoken = sum(len(line["text"]) for line in made) / CHARS_PER_SECOND / 3600
    print(f"{out}: {len(made):,} lines, about {spoken:.1f} h")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("unpacked", type=Path, help="folder with the unpacked packages")
    parser.add_argument("out", type=Path, help="JSON Lines file to write")
    parser.add_argument("--hours", type=float, default=24.0, help="about how much speech (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--without", type=Path, help="JSON Lines file of texts to evaluate on, kept out")
    given = parser.parse_args()
    main(given.unpacked, given.out, given.hours, given.seed, given.without)
