"""Generate the closed spoken domain of EchoX-nano from rules: short questions, each with exactly one reply.

    python -m echo_targets.jobs.corpora.nano_domain OUT.jsonl [--seed 0]

There are ten families of dialogues of one question and one reply. Questions vary in pace, pitch, loudness and noise;
replies use the plain voice. A tenth of each family is the split `test`, which tests generalization. An item is the
subject of a question, such as two numbers in either order, or a phrase:

- In *open* families (plus, minus, numbers, animals, repeat), a reply can be derived from other replies. `train`
  contains no wording of a test item.
- In *closed* families (times, calendar, spelling, opposites, countries), a reply must be memorized. A test dialogue is
  one wording of an item, and `train` contains the item in its other wordings, at least two.

Numbers are written as words. Spellings use capital letters, because a lower-case "a" would be pronounced as the
article.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product
from pathlib import Path
from typing import Any

TEST_SHARE = 0.1


def _listed(text: str) -> list[str]:
    """Split text at commas if it has any, otherwise at spaces."""
    return text.split(", ") if "," in text else text.split()


ONES = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBERS = ONES + [f"{ten} {one}".strip() for ten in TENS for one in ("", *ONES[1:10])]
"""Zero to ninety-nine."""

DAYS = _listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _listed("January February March April May June July August September October November December")
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ORDINALS = _listed("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth")

NEIGHBOURS = {
    "after": "what {0} comes after {1}?|what is the {0} after {1}?|which {0} follows {1}?",
    "before": "what {0} comes before {1}?|what is the {0} before {1}?|which {0} is just before {1}?",
}
STEPS = {
    "after": (
        "what {0} is {1} {0}s after {2}?|it is {2}. what {0} is it in {1} {0}s?"
        "|if it is {2}, what comes {1} {0}s later?",
        "{1} {0}s after {2} it is {3}.",
    ),
    "before": (
        "what {0} is {1} {0}s before {2}?|it is {2}. what {0} was it {1} {0}s ago?"
        "|if it is {2}, what came {1} {0}s ago?",
        "{1} {0}s before {2} it was {3}.",
    ),
}

ANIMALS = _listed(
    "a flea, an ant, a bee, a mouse, a rat, a squirrel, a rabbit, a cat, a beaver, a wolf, a sheep, a pig, a lion,"
    " a bear, a horse, a cow, a hippo, a rhino, an elephant, a whale"
)
"""Sorted by weight, lightest first."""

SPELT = _listed(
    "apple arm baby bag bank bath bed bell belt bench bird boat book boot box bread brick brush bus cake camel camp"
    " candy cap car card cat chalk clock cloud club comb cook cup dance desk dish dog doll door dress drum duck dust"
    " egg farm fence field film fire fish flag flame floor fork frog frost gift girl glass glove goat gold grape grass"
    " hat help hill honey house ink jam jar jelly jump king lake lamp leg lemon lid lip lunch map mask melon milk money"
    " monk moon mouth mud music neck nest nut ocean oven paint pan paper park party pen pilot plum pond pot puppy radio"
    " river road salt sand shelf ship shop silk skirt smile snake snow soap sock song soup spoon star stone storm"
    " street sugar table tent tiger tooth towel train tree truck uncle van watch wheat wing wood wool yard zebra zoo"
)

OPPOSITES = _listed(
    "hot cold, big small, fast slow, happy sad, up down, open closed, wet dry, clean dirty, full empty, rich poor,"
    " young old, early late, hard soft, high low, loud quiet, near far, day night, black white, thick thin,"
    " wide narrow, deep shallow, easy difficult, strong weak, good bad, true false, always never, begin end, push pull,"
    " buy sell, win lose, love hate, laugh cry, left right, north south, east west, sweet sour, smooth rough,"
    " front back, inside outside, before after, above below, friend enemy, question answer, summer winter, war peace,"
    " king queen, brother sister, mother father, boy girl, man woman, asleep awake, alive dead, alone together,"
    " brave afraid, cheap expensive, safe dangerous, sharp blunt, tall short, top bottom, first last, more less,"
    " many few, remember forget, arrive leave, give take, float sink, rise fall, lock unlock, polite rude, dark bright"
)

COUNTRIES = {
    "Europe": "Italy Rome, France Paris, Spain Madrid, Germany Berlin, Poland Warsaw, Austria Vienna, Greece Athens,"
    " Ireland Dublin, Portugal Lisbon, Norway Oslo, Sweden Stockholm, Finland Helsinki, Denmark Copenhagen,"
    " Hungary Budapest, Belgium Brussels, Iceland Reykjavik, Croatia Zagreb, Romania Bucharest, Bulgaria Sofia,"
    " Serbia Belgrade",
    "Asia": "Japan Tokyo, China Beijing, Thailand Bangkok, Vietnam Hanoi, Nepal Kathmandu, Iran Tehran, Iraq Baghdad,"
    " Lebanon Beirut, Syria Damascus, Jordan Amman, Afghanistan Kabul, Bangladesh Dhaka, Qatar Doha",
    "Africa": "Egypt Cairo, Kenya Nairobi, Ghana Accra, Morocco Rabat, Libya Tripoli, Uganda Kampala, Senegal Dakar,"
    " Angola Luanda, Somalia Mogadishu, Zambia Lusaka, Sudan Khartoum, Rwanda Kigali",
    "North America": "Canada Ottawa, Cuba Havana",
    "South America": "Peru Lima, Chile Santiago, Colombia Bogota, Ecuador Quito, Venezuela Caracas, Uruguay Montevideo",
}

NAMES = _listed("Anna Ben Clara David Emma Felix Grace Henry Ida Jack Laura Martin")
DEEDS = _listed("found lost bought sold wanted painted carried dropped cleaned kept")
LOOKS = _listed("red blue green yellow black white small big old new round broken clean heavy")
THINGS = _listed(
    "ball book cup hat key lamp box bag spoon clock shoe pencil bottle plate coat basket letter apple doll"
)
WHERE = _listed("under on behind near beside")
PLACES = _listed("table chair bed door window shelf sofa desk car tree bench fence bridge house")

Item = tuple[str, ...]
Wording = tuple[str, str]
"""A question and its reply."""


@dataclass(frozen=True)
class Dialogue:
    """A question and its reply about an item of a family."""

    family: str
    item: Item
    question: str
    reply: str
    split: str


@dataclass(frozen=True)
class Family:
    """A kind of dialogue.

    Attributes:
        items: yields each item with all of its wordings.
        is_open: True if a reply can be derived from the replies about other items.
        num_items: number of items to draw; None for all.
        num_wordings: number of wordings to draw for each item; None for all.
    """

    items: Callable[[], Iterator[tuple[Item, list[Wording]]]]
    is_open: bool
    num_items: int | None = None
    num_wordings: int | None = None


def _wordings(questions: str, reply: str, *words: str) -> list[Wording]:
    """Fill in templates: several questions, separated by "|", with the same reply."""
    return [
        (_sentences(question.format(*words)), _sentences(reply.format(*words))) for question in questions.split("|")
    ]


def _sentences(text: str) -> str:
    return re.sub(r"(^|[.?] )([a-z])", lambda start: start[1] + start[2].upper(), text)


def _parity(number: int) -> str:
    return "odd" if number % 2 else "even"


def _plus() -> Iterator[tuple[Item, list[Wording]]]:
    for low, high in combinations_with_replacement(range(50), 2):
        wordings = []
        for a, b in sorted({(low, high), (high, low)}):
            words = NUMBERS[a], NUMBERS[b], NUMBERS[a + b], _parity(a + b)
            wordings += _wordings("what is {0} plus {1}?|how much is {0} plus {1}?", "{0} plus {1} is {2}.", *words)
            wordings += _wordings("add {0} and {1}.", "you get {2}. that is an {3} number.", *words)
        yield (NUMBERS[low], NUMBERS[high]), wordings


def _minus() -> Iterator[tuple[Item, list[Wording]]]:
    for low, high in combinations_with_replacement(range(50), 2):
        words = NUMBERS[high], NUMBERS[low], NUMBERS[high - low], _parity(high - low)
        yield (
            (NUMBERS[high], NUMBERS[low]),
            _wordings("what is {0} minus {1}?|how much is {0} minus {1}?", "{0} minus {1} is {2}.", *words)
            + _wordings("take {1} away from {0}.", "{2} is left. that is an {3} number.", *words),
        )


def _times() -> Iterator[tuple[Item, list[Wording]]]:
    for a, b in product(range(1, 11), repeat=2):
        if a * b < 100:
            words = NUMBERS[a], NUMBERS[b], NUMBERS[a * b]
            questions = "what is {0} times {1}?|how much is {0} times {1}?|what does {0} times {1} make?"
            questions += "|work out {0} times {1}.|multiply {0} by {1}.|what is {0} multiplied by {1}?"
            yield (NUMBERS[a], NUMBERS[b]), _wordings(questions, "{0} times {1} is {2}.", *words)


def _numbers() -> Iterator[tuple[Item, list[Wording]]]:
    return (((low, high), _comparisons(low, high, "larger")) for low, high in combinations(NUMBERS, 2))


def _animals() -> Iterator[tuple[Item, list[Wording]]]:
    return (((small, big), _comparisons(small, big, "bigger")) for small, big in combinations(ANIMALS, 2))


def _comparisons(low: str, high: str, above: str) -> list[Wording]:
    words = low, high, above
    return (
        _wordings("which is {2}, {0} or {1}?|which is {2}, {1} or {0}?", "{1} is {2} than {0}.", *words)
        + _wordings("which is smaller, {0} or {1}?|which is smaller, {1} or {0}?", "{0} is smaller than {1}.", *words)
        + _wordings("is {1} {2} than {0}?", "yes. {1} is {2} than {0}.", *words)
        + _wordings("is {0} {2} than {1}?", "no. {0} is smaller than {1}.", *words)
    )


def _repeat() -> Iterator[tuple[Item, list[Wording]]]:
    places = (
        f"The {look} {thing} is {where} the {place}."
        for look, thing, where, place in product(LOOKS, THINGS, WHERE, PLACES)
    )
    deeds = (f"{name} {deed} the {look} {thing}." for name, deed, look, thing in product(NAMES, DEEDS, LOOKS, THINGS))
    for phrase in (*places, *deeds):
        yield (phrase,), _wordings("say this. {0}|repeat this. {0}|repeat after me. {0}", "{0}", phrase)


def _calendar() -> Iterator[tuple[Item, list[Wording]]]:
    for kind, names, most in (("day", DAYS, 6), ("month", MONTHS, 4)):
        for place, name in enumerate(names):
            for way, sign in (("after", 1), ("before", -1)):
                found = [names[(place + sign * steps) % len(names)] for steps in range(most + 1)]
                yield (kind, way, name), _wordings(NEIGHBOURS[way], "{2} comes {3} {1}.", kind, name, found[1], way)
                for steps in range(2, most + 1):
                    words = kind, NUMBERS[steps], name, found[steps]
                    yield (kind, way, name, NUMBERS[steps]), _wordings(*STEPS[way], *words)
    for month, nth, days in zip(MONTHS, ORDINALS, MONTH_DAYS, strict=True):
        questions = "how many days does {0} have?|how many days are there in {0}?|how long is {0}?"
        yield ("length", month), _wordings(questions, "{0} has {1} days.", month, NUMBERS[days])
        questions = "what is the {0} month?|name the {0} month of the year.|which month is the {0}?"
        reply = "the {0} month is {1}. it has {2} days."
        yield ("place", month, nth), _wordings(questions, reply, nth, month, NUMBERS[days])


def _spelling() -> Iterator[tuple[Item, list[Wording]]]:
    questions = "how do you spell {0}?|spell the word {0}.|how is {0} spelled?|can you spell {0}?"
    for word in SPELT:
        yield (word,), _wordings(questions, "{0} is spelled {1}.", word, ", ".join(word.upper()))


def _opposites() -> Iterator[tuple[Item, list[Wording]]]:
    questions = "what is the opposite of {0}?|tell me the opposite of {0}."
    questions += "|which word is the opposite of {0}?|{0} is the opposite of what?"
    for pair in OPPOSITES:
        for word, other in (pair.split(), pair.split()[::-1]):
            yield (word,), _wordings(questions, "the opposite of {0} is {1}.", word, other)


def _countries() -> Iterator[tuple[Item, list[Wording]]]:
    capital = "what is the capital of {0}?|which city is the capital of {0}?|name the capital of {0}."
    capital += "|tell me the capital of {0}."
    country = "what country is {1} in?|in which country is {1}?|where is {1}?|tell me where {1} is."
    continent = "what continent is {0} in?|on which continent is {0}?|where is {0}?"
    for where, pairs in COUNTRIES.items():
        for pair in _listed(pairs):
            words = *pair.split(), where
            yield ("capital", words[0]), _wordings(capital, "{1} is the capital of {0}. it is in {2}.", *words)
            yield ("country", words[1]), _wordings(country, "{1} is in {0}.", *words)
            yield ("continent", words[0]), _wordings(continent, "{0} is in {2}.", *words)


FAMILIES = {
    "plus": Family(_plus, is_open=True, num_wordings=2),
    "minus": Family(_minus, is_open=True, num_wordings=1),
    "times": Family(_times, is_open=False),
    "numbers": Family(_numbers, is_open=True, num_items=500, num_wordings=2),
    "animals": Family(_animals, is_open=True, num_wordings=4),
    "repeat": Family(_repeat, is_open=True, num_items=2000, num_wordings=1),
    "calendar": Family(_calendar, is_open=False),
    "spelling": Family(_spelling, is_open=False),
    "opposites": Family(_opposites, is_open=False),
    "countries": Family(_countries, is_open=False),
}


def dialogues(seed: int = 0) -> list[Dialogue]:
    """Return all dialogues in random order; equal seeds give equal lists."""
    found = [dialogue for name in FAMILIES for dialogue in _draw(name, random.Random(f"{name} {seed}"))]
    random.Random(seed).shuffle(found)
    return found


def _draw(name: str, rng: random.Random) -> Iterator[Dialogue]:
    family = FAMILIES[name]
    items = list(family.items())
    items = rng.sample(items, family.num_items or len(items))
    drawn = [(item, rng.sample(wordings, family.num_wordings or len(wordings))) for item, wordings in items]
    tests = TEST_SHARE * (len(drawn) if family.is_open else sum(len(wordings) for _, wordings in drawn))
    for place, (item, wordings) in enumerate(drawn):
        for wording, (question, reply) in enumerate(wordings):
            is_test = place < tests and (family.is_open or wording == 0)
            yield Dialogue(name, item, question, reply, "test" if is_test else "train")


def rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield lines for the source `spoken`: each dialogue's question with its voice settings, then its reply."""
    rng = random.Random(f"voices {seed}")
    for number, dialogue in enumerate(dialogues(seed)):
        key = f"{dialogue.family}-{number:05d}"
        shared = {"dialogue_id": key, "split": dialogue.split}
        question = {"id": f"{key}-q", **shared, "turn": 0, "role": "user", "text": dialogue.question}
        yield question | {"voice": _voice(rng)}
        yield {"id": f"{key}-a", **shared, "turn": 1, "role": "assistant", "text": dialogue.reply}


def _voice(rng: random.Random) -> dict[str, Any]:
    return {
        "speed": round(rng.uniform(0.9, 1.3), 2),
        "pitch": round(rng.uniform(-3, 3), 2),
        "gain_db": round(rng.uniform(-12, 3), 1),
        "snr_db": round(rng.uniform(15, 45), 1),
        "noise": rng.choice(["white", "pink"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="JSON Lines file to write")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    arguments = parser.parse_args()
    lines = [json.dumps(row) + "\n" for row in rows(arguments.seed)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(lines), encoding="utf-8")
    print(f"Wrote {len(lines) // 2} dialogues to {arguments.out}")


if __name__ == "__main__":
    main()
