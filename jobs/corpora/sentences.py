"""English sentences to train a small text-to-codec model on: templates, word lists and hand-written sentences.

``python -m jobs.corpora.sentences --count 20000 --seed 0`` prints JSON lines for the speech synthesiser. Sentences hold
letters, spaces, apostrophes and ``. , ? !`` only; numbers are words, so no text normaliser is needed downstream.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar
from zlib import crc32

MIN_CHARS, MAX_CHARS = 10, 110
MAX_SENTENCE_USES = 150  # the same sentence may come back in so many utterances: openers and closers need it
CANDIDATES = 4
DEMO_DIALOGUES = Path(__file__).with_name("demo_dialogues.jsonl")

Row = tuple[str, ...]
T = TypeVar("T")


def _words(text: str) -> list[str]:
    return text.split()


# --- numbers ----------------------------------------------------------------------------------------------------------

_SMALL = _words("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
""")
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")


def number_words(number: int) -> str:
    """Spell 0 to 999 without hyphens: 342 is "three hundred and forty two"."""
    if not 0 <= number <= 999:
        raise ValueError(f"{number} is not in 0..999")
    if number < 20:
        return _SMALL[number]
    if number < 100:
        unit = number % 10
        return _TENS[number // 10 - 2] + (f" {_SMALL[unit]}" if unit else "")
    rest = number % 100
    return f"{_SMALL[number // 100]} hundred" + (f" and {number_words(rest)}" if rest else "")


def _numbers(*values: int) -> Row:
    return tuple(number_words(value) for value in values)


# --- word forms -------------------------------------------------------------------------------------------------------


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("/") for pair in text.split())


_PLURALS = _pairs("""
    child/children wolf/wolves knife/knives leaf/leaves mouse/mice goose/geese foot/feet tooth/teeth sheep/sheep
    deer/deer shelf/shelves piano/pianos photo/photos radio/radios video/videos kangaroo/kangaroos zoo/zoos
    scarf/scarves calf/calves fisherman/fishermen wife/wives flamingo/flamingos salmon/salmon cello/cellos
    banjo/banjos studio/studios half/halves buffalo/buffalo avocado/avocados mango/mangos burrito/burritos
    taco/tacos moose/moose squid/squid shrimp/shrimp tuna/tuna jellyfish/jellyfish starfish/starfish
""")
_PASTS = _pairs("""
    eat/ate make/made take/took write/wrote sing/sang swim/swam run/ran buy/bought build/built catch/caught
    draw/drew drive/drove feed/fed find/found fly/flew grow/grew hold/held keep/kept leave/left lose/lost meet/met
    pay/paid ride/rode sell/sold send/sent sit/sat sleep/slept speak/spoke sweep/swept teach/taught tell/told
    think/thought throw/threw wear/wore win/won choose/chose bring/brought begin/began drink/drank dig/dug
    hear/heard hide/hid see/saw shake/shook give/gave have/had do/did cut/cut set/set forget/forgot lend/lent
    light/lit bake/baked quit/quit sew/sewed shut/shut ring/rang freeze/froze
""")
_DOUBLE_LAST = re.compile(r"^[^aeiou]*[aeiou][^aeiouwxy]$|^(begin|forget|quit)$")
_AN = re.compile(r"^(?!uni|use|euro|one\b|ukulele)[aeiou]|^(hour|honest)", re.IGNORECASE)


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")) or (word.endswith("o") and word[-2] not in "aeiou"):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _with_vowel_suffix(word: str, suffix: str) -> str:
    """Append "ing", "ed" or "er" to a regular word."""
    if suffix == "ing":
        if word.endswith("ie"):
            return word[:-2] + "ying"
        if word.endswith("e") and not word.endswith(("ee", "ye")):
            return word[:-1] + "ing"
    else:
        if word.endswith("e"):
            return word + suffix[1:]
        if word.endswith("y") and word[-2] not in "aeiou":
            return word[:-1] + "i" + suffix
    return word + (word[-1] if _DOUBLE_LAST.match(word) else "") + suffix


def inflect(phrase: str, form: str) -> str:
    """Inflect the last word of a phrase (``pl``) or its first (``ing``, ``ed`` of verbs, ``er`` of adjectives).

    Raises ValueError for any other form.
    """
    if form == "pl":
        head, _, noun = phrase.rpartition(" ")
        return f"{head} {_PLURALS.get(noun, _plural(noun))}".strip()
    first, _, rest = phrase.partition(" ")
    if form == "ed" and first in _PASTS:
        first = _PASTS[first]
    elif form in ("ing", "ed", "er"):
        first = _with_vowel_suffix(first, form)
    else:
        raise ValueError(f"unknown form {form!r}")
    return f"{first} {rest}".strip()


# --- word lists: comma separated, fields of a row separated by "/" ----------------------------------------------------


def _rows(text: str) -> list[Row]:
    return [tuple(row.strip().split("/")) for row in " ".join(text.split()).split(",")]


BANKS: dict[str, list[Row]] = {
    name: _rows(text)
    for name, text in {
        "name": """
            Anna, Ben, Clara, David, Emma, Frank, Grace, Henry, Julia, Kevin, Laura, Martin, Nora, Oliver, Paul, Rosa,
            Simon, Thomas, Victor, Wendy, Alice, Brian, Carlos, Diana, Edward, Felix, George, Hannah, Ivan, Jack,
            Karen, Leo, Maria, Nathan, Olga, Peter, Rachel, Sarah, Tina, Walter, Amy, Bruno, Daisy, Eric, Fiona,
            Helen, Jacob, Kate, Lucas, Mia, Nina, Oscar, Robert, Sophie, Tom, Zoe, Adam, Bella, Charlie, Ella, Harry,
            Isaac, Jenny, Linda, Max, Molly, Philip, Ruby, Sam, Tara, Vera, William, Lily, Ravi, Mina, Omar, Ken, Ali
        """,
        "family": """
            mother, father, sister, brother, grandmother, grandfather, aunt, uncle, cousin, daughter, son, husband,
            wife, niece, nephew, neighbor, friend, partner, roommate, boss, teammate, classmate, twin
        """,
        "job": """
            teacher, doctor, nurse, farmer, baker, driver, pilot, singer, writer, painter, lawyer, plumber, carpenter,
            gardener, chef, waiter, dentist, engineer, scientist, librarian, mechanic, soldier, sailor, tailor,
            butcher, barber, cashier, manager, secretary, student, actor, dancer, musician, poet, judge, coach, guard,
            guide, builder, electrician, photographer, reporter, detective, firefighter, fisherman, astronaut,
            architect, banker, cleaner, clerk, designer, editor, florist, hunter, miner, officer, pharmacist,
            programmer, ranger, shepherd, surgeon, translator, captain, professor
        """,
        "animal": """
            dog, cat, horse, cow, pig, goat, sheep, rabbit, mouse, fox, wolf, bear, lion, tiger, elephant, giraffe,
            zebra, monkey, kangaroo, camel, deer, squirrel, hedgehog, frog, turtle, snake, lizard, donkey, bat, otter,
            beaver, panda, koala, leopard, moose, badger, hamster, crocodile, gorilla, buffalo, llama, raccoon
        """,
        "bird": """
            eagle, owl, parrot, penguin, duck, goose, swan, chicken, pigeon, robin, sparrow, crow, hawk, seagull,
            peacock, ostrich, flamingo, turkey, woodpecker, hummingbird, raven, falcon
        """,
        "sea_animal": """
            whale, dolphin, shark, octopus, crab, lobster, salmon, seal, starfish, jellyfish, squid, shrimp, tuna
        """,
        "insect": """
            bee, ant, butterfly, spider, beetle, mosquito, ladybug, dragonfly, cricket, moth, wasp, snail, worm,
            grasshopper, firefly
        """,
        "fruit": """
            apple, banana, orange, pear, grape, lemon, lime, peach, plum, cherry, strawberry, melon, mango, pineapple,
            coconut, raspberry, blueberry, kiwi, watermelon, date
        """,
        "vegetable": """
            carrot, potato, onion, tomato, cucumber, pepper, cabbage, pumpkin, mushroom, beet, avocado, eggplant,
            zucchini, olive, chili
        """,
        "food": """
            bread, cheese, butter, rice, pasta, honey, jam, yogurt, chocolate, soup, salad, cake, garlic, spinach,
            broccoli, celery, corn, lettuce, beef, ham, bacon, fish, tofu, popcorn, pie, toast, cereal, oatmeal,
            cream, ice cream, pudding, pizza, stew, curry, noodles, peanut butter, maple syrup, roast chicken, mashed
            potatoes, fried eggs, mustard, ketchup, vinegar, cinnamon, ginger, basil, parsley, vanilla
        """,
        "meal": """
            sandwich, omelet, burger, pancake, waffle, taco, muffin, cookie, biscuit, pretzel, steak, sausage,
            dumpling, meatball, burrito, croissant, bagel, donut, cupcake, snack, picnic, breakfast, lunch, dinner
        """,
        "drink": """
            water, milk, coffee, tea, orange juice, lemonade, cocoa, apple juice, soda, hot chocolate, wine, beer,
            green tea, cider, cold milk, tomato juice, mint tea, sparkling water, black coffee, fruit juice
        """,
        "kitchen": """
            spoon, fork, knife, plate, bowl, cup, mug, pan, pot, kettle, oven, stove, fridge, freezer, sink, toaster,
            blender, tray, jar, bottle, dish, napkin, apron, grill, teapot, lid
        """,
        "furniture": """
            table, chair, sofa, bed, desk, shelf, lamp, mirror, carpet, curtain, cupboard, drawer, bench, stool,
            wardrobe, pillow, blanket, rug, cushion, clock, vase, couch
        """,
        "clothing": """
            shirt, coat, jacket, hat, scarf, dress, skirt, sweater, belt, tie, sock, shoe, boot, glove, cap, raincoat,
            suit, uniform, apron, helmet, necklace, bracelet, ring, sandal, slipper, pocket, button, zipper, sleeve
        """,
        "tool": """
            hammer, saw, drill, ladder, shovel, rake, broom, bucket, mop, brush, rope, nail, screw, wrench, axe,
            needle, ruler, pencil, pen, marker, notebook, envelope, stamp, candle, torch, match, key, lock, battery,
            magnet, compass, telescope, microscope, thermometer, calculator, hose, sponge, towel, basket, chain
        """,
        "device": """
            phone, computer, laptop, tablet, camera, radio, television, printer, keyboard, screen, speaker,
            microphone, robot, charger, alarm, fan, heater, vacuum cleaner, washing machine, doorbell, remote control,
            video game
        """,
        "item": """
            book, letter, newspaper, magazine, map, ticket, passport, wallet, purse, umbrella, suitcase, backpack,
            bag, box, gift, toy, doll, ball, kite, puzzle, coin, card, photo, painting, poster, calendar, diary, flag,
            bell, balloon, package, parcel, receipt, menu, recipe, message, song, poem, story, joke, movie, novel,
            dictionary, postcard, password, file, folder, tent, sleeping bag, flashlight, blanket, stone, shell,
            feather, leaf, stick, crown, treasure, mask, costume, ribbon, badge, trophy, medal, whistle
        """,
        "vehicle": """
            car, bus, train, bicycle, truck, taxi, boat, ship, plane, helicopter, motorcycle, tram, van, tractor,
            ferry, canoe, scooter, ambulance, wagon, sled, rocket, balloon, fire engine
        """,
        "instrument": """
            piano, guitar, violin, flute, drum, trumpet, harp, cello, clarinet, saxophone, banjo, ukulele, organ
        """,
        "sport": """
            football, tennis, basketball, baseball, hockey, golf, cricket, volleyball, rugby, chess, soccer, table
            tennis, cards, hide and seek
        """,
        "subject": """
            history, geography, math, science, biology, chemistry, physics, music, art, literature, grammar,
            philosophy, medicine, law, astronomy, geometry, politics, engineering, poetry, drama, psychology, nature,
            health, technology, business, education, religion, robotics, cooking, gardening, photography,
            architecture, fashion, travel, language, spelling, wildlife
        """,
        "language": """
            English, French, Spanish, German, Italian, Japanese, Chinese, Arabic, Russian, Portuguese, Greek, Dutch,
            Korean, Turkish, Swedish, Polish, Hindi, Latin, Danish, Finnish
        """,
        "place": """
            park, school, library, hospital, museum, station, airport, bakery, market, bank, hotel, restaurant, cafe,
            theater, cinema, church, office, factory, farm, beach, garden, zoo, stadium, gym, bridge, castle, harbor,
            post office, supermarket, pharmacy, bookstore, town hall, police station, playground, swimming pool,
            university, temple, lighthouse, tower, square, gallery, bus stop, parking lot, laundry, studio, cottage,
            palace, village, mall, campground, courthouse, fountain, gas station, barn, warehouse, workshop
        """,
        "room": """
            kitchen, bedroom, bathroom, living room, dining room, hall, attic, basement, garage, balcony, classroom,
            porch, closet, pantry, cellar, backyard, nursery, lobby, hallway, elevator, waiting room, courtyard
        """,
        "nature": """
            river, lake, mountain, forest, desert, island, valley, hill, ocean, waterfall, cave, cliff, field, meadow,
            jungle, swamp, volcano, pond, stream, coast, bay, shore, path, trail, rainbow, sunset, sunrise
        """,
        "plant": """
            rose, tulip, daisy, sunflower, lily, oak, pine, maple, willow, palm, cactus, fern, birch, orchid, violet,
            dandelion
        """,
        "body": """
            head, hand, foot, arm, leg, knee, elbow, shoulder, neck, back, stomach, finger, thumb, toe, ear, eye,
            nose, mouth, tooth, chin, cheek, wrist, ankle, heart, throat, lip, tongue, chest
        """,
        "city": """
            London, Paris, Rome, Berlin, Madrid, Tokyo, Boston, Chicago, Dublin, Sydney, Toronto, Vienna, Moscow,
            Cairo, Oslo, Athens, Lisbon, Prague, Denver, Seattle, Dallas, Mumbai, Shanghai, Barcelona, Munich, Venice,
            Amsterdam, Brussels, Zurich, Melbourne, Vancouver, Istanbul, Singapore, Bangkok, Nairobi, Lima
        """,
        "capital": """
            France/Paris, Italy/Rome, Germany/Berlin, Spain/Madrid, Japan/Tokyo, Ireland/Dublin, Austria/Vienna,
            Russia/Moscow, Egypt/Cairo, Norway/Oslo, Greece/Athens, Portugal/Lisbon, Canada/Ottawa,
            Australia/Canberra, Sweden/Stockholm, Finland/Helsinki, Denmark/Copenhagen, Poland/Warsaw,
            Hungary/Budapest, Belgium/Brussels, China/Beijing, India/New Delhi, Thailand/Bangkok, Kenya/Nairobi,
            Peru/Lima, Chile/Santiago, Cuba/Havana, Turkey/Ankara, Morocco/Rabat, England/London, Scotland/Edinburgh,
            Argentina/Buenos Aires, Brazil/Brasilia, Colombia/Bogota, Nigeria/Abuja, Iceland/Reykjavik, Korea/Seoul,
            Iran/Tehran, Iraq/Baghdad, Mexico/Mexico City, Ghana/Accra, Jordan/Amman, Nepal/Kathmandu, Vietnam/Hanoi,
            Malta/Valletta, Bulgaria/Sofia
        """,
        "continent": """
            France/Europe, Italy/Europe, Japan/Asia, China/Asia, India/Asia, Egypt/Africa, Kenya/Africa,
            Nigeria/Africa, Brazil/South America, Peru/South America, Chile/South America, Canada/North America,
            Mexico/North America, Sweden/Europe, Vietnam/Asia, Morocco/Africa, Ghana/Africa, Argentina/South America,
            Nepal/Asia, Thailand/Asia, Poland/Europe, Cuba/North America
        """,
        "planet": "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune",
        "color": """
            red, blue, green, yellow, black, white, brown, pink, purple, gray, orange, gold, silver, dark blue, light
            green, bright red, pale yellow, cream
        """,
        "colored": """
            the sky/blue, the grass/green, snow/white, blood/red, coal/black, milk/white, a lemon/yellow,
            chocolate/brown, a banana/yellow, a frog/green, a tomato/red, a crow/black, a carrot/orange, the sea/blue,
            a flamingo/pink, an elephant/gray, a plum/purple, a pumpkin/orange, a strawberry/red, a swan/white,
            lavender/purple, a fire engine/red, a sunflower/yellow, spinach/green, coffee/brown, a cloud/white, the
            night/dark, ivy/green
        """,
        "material": """
            wood, glass, metal, paper, plastic, stone, leather, cotton, wool, silk, gold, silver, iron, steel, copper,
            clay, rubber, brick, marble, cardboard, rope, bamboo, concrete, ice
        """,
        "made": """
            bread/flour, cheese/milk, butter/cream, wine/grapes, paper/wood, glass/sand, chocolate/cocoa beans,
            jam/fruit and sugar, a sweater/wool, a brick/clay, a candle/wax, yogurt/milk, a cake/flour and eggs,
            lemonade/lemons, a tire/rubber, an omelet/eggs, honey/nectar, ketchup/tomatoes, a snowman/snow, a
            coin/metal, olive oil/olives, a window/glass, popcorn/corn, a belt/leather, a book/paper, a scarf/wool, a
            bridge/steel and stone
        """,
        "shape": "circle, square, triangle, rectangle, star, heart, oval, diamond, cube, pyramid, spiral",
        "month": "January, February, March, April, May, June, July, August, September, October, November, December",
        "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
        "season": "spring, summer, autumn, winter",
        "weather": """
            sunny, rainy, cloudy, windy, snowy, foggy, stormy, warm, cold, hot, chilly, icy, dry, cool, mild,
            freezing, misty, clear, breezy
        """,
        "storm": """
            rain, snow, wind, fog, thunder, lightning, sunshine, storm, frost, heat, mist, breeze, flood, blizzard,
            shower, hurricane
        """,
        "part": "morning, afternoon, evening, night, weekend, holiday, vacation, winter, summer",
        "when": """
            today, tomorrow, tonight, next week, soon, later, this morning, this afternoon, on the weekend, after
            lunch, before dinner, next month, in an hour, right now, every day, after school, in the morning, in the
            evening, at noon, before sunrise, at midnight, next summer, once a week, twice a month
        """,
        "past": """
            yesterday, last night, last week, last month, last year, this morning, two days ago, an hour ago, a week
            ago, last summer, a long time ago, on the weekend, three years ago, last winter, the other day, earlier
            today, before breakfast, after work
        """,
        "often": "always, often, sometimes, usually, rarely, never, seldom, normally, generally, frequently",
        "feeling": """
            happy, sad, tired, angry, nervous, bored, excited, lonely, proud, scared, worried, calm, jealous,
            grateful, confused, surprised, stressed, hopeful, sleepy, hungry, thirsty, sick, upset, curious,
            disappointed, anxious, relaxed, ashamed, cheerful, frustrated, guilty, shy
        """,
        "person_adj": """
            kind, clever, brave, honest, funny, polite, patient, generous, friendly, lazy, careful, quiet, gentle,
            strong, famous, wise, creative, helpful, loyal, modest, serious, stubborn, talented, charming, cheerful,
            busy, rich, poor, young, elegant, humble, sensible, witty, skilled, ambitious, tall, thoughtful,
            responsible, reliable, sensitive, energetic, confident, intelligent, organized, forgetful, grumpy, clumsy,
            silly, rude, selfish, shy, curious
        """,
        "adj": """
            new, old, small, big, beautiful, broken, heavy, light, cheap, expensive, clean, dirty, empty, full,
            useful, strange, simple, lovely, large, tiny, round, square, soft, hard, smooth, rough, sharp, wet,
            modern, ancient, colorful, plain, fancy, ugly, perfect, enormous, favorite, special, ordinary, rare,
            common, wooden, shiny, dusty, rusty, fragile, solid, narrow, wide, thick, thin, long, short, famous,
            valuable, precious, huge, secret, golden, silver, comfortable, practical, unusual, familiar, typical,
            magical, crooked, hollow, flat, steep, striped, giant, genuine, decent, classic
        """,
        "idea_adj": """
            important, difficult, easy, interesting, wonderful, terrible, dangerous, safe, possible, impossible,
            necessary, useful, boring, exciting, strange, natural, healthy, amazing, normal, wrong, right, fair, fun,
            great, smart, brilliant, risky, foolish, relaxing, helpful, pleasant, awful, delightful, challenging,
            enjoyable, tricky, sensible, harmless, pointless, rewarding, popular, traditional, expensive, stressful
        """,
        "taste": """
            sweet, sour, salty, bitter, spicy, fresh, delicious, crispy, juicy, creamy, tasty, hot, ripe, crunchy,
            tender, rich, bland, frozen, raw, stale, sticky, warm, healthy, fluffy, smoky
        """,
        "short": """
            big, small, tall, short, fast, slow, old, young, strong, weak, heavy, light, bright, dark, cold, warm,
            soft, hard, loud, quiet, long, wide, thick, thin, deep, high, low, rich, poor, cheap, clean, dirty, happy,
            sad, nice, kind, wise, brave, calm, cool, sweet, sharp, smooth, rough, fresh, funny, busy, easy, simple,
            lucky, noisy, pretty, healthy, hungry, lazy, tiny, gentle, strange, safe, large
        """,
        "manner": """
            quickly, slowly, quietly, loudly, carefully, happily, sadly, gently, bravely, politely, patiently,
            suddenly, eagerly, calmly, easily, nervously, proudly, kindly, gladly, secretly, badly, neatly, safely,
            honestly, silently, angrily, gracefully, perfectly, lazily, wisely, cheerfully, anxiously
        """,
        "degree": """
            very, really, quite, rather, fairly, extremely, surprisingly, unusually, pretty, truly, incredibly,
            especially, remarkably, slightly, terribly, somewhat
        """,
        "opposite": """
            hot/cold, big/small, tall/short, fast/slow, light/dark, happy/sad, old/young, rich/poor, hard/soft,
            wet/dry, full/empty, open/closed, early/late, loud/quiet, strong/weak, heavy/light, near/far, high/low,
            day/night, left/right, up/down, in/out, love/hate, war/peace, begin/end, win/lose, push/pull, buy/sell,
            give/take, true/false, thick/thin, wide/narrow, deep/shallow, sharp/dull, clean/dirty, sweet/sour,
            rough/smooth, brave/afraid, friend/enemy, remember/forget, question/answer, north/south, east/west,
            summer/winter, above/below, before/after, inside/outside, always/never, everything/nothing, first/last,
            float/sink, laugh/cry, arrive/leave, add/subtract, increase/decrease, success/failure, cheap/expensive,
            polite/rude, dangerous/safe, ancient/modern, public/private, possible/impossible, generous/selfish,
            lazy/active, simple/complicated, tight/loose, raw/cooked, guilty/innocent, same/different, awake/asleep,
            alive/dead, odd/even, find/lose, borrow/lend, teach/learn, accept/refuse, freeze/melt, beautiful/ugly,
            bright/dim, calm/nervous, careful/careless, front/back, top/bottom
        """,
        "synonym": """
            big/large, small/little, happy/glad, sad/unhappy, fast/quick, smart/clever, begin/start, end/finish,
            angry/mad, quiet/silent, rich/wealthy, hard/difficult, easy/simple, scared/afraid, sick/ill, odd/strange,
            choose/select, house/home, road/street, gift/present, kind/gentle, correct/right, job/work, photo/picture,
            shop/store, speak/talk, answer/reply, journey/trip, huge/enormous, tiny/small, hope/wish, think/believe,
            fix/repair, build/construct, close/shut, keep/save, look/watch, famous/well known, old/ancient,
            forest/woods, ocean/sea, stone/rock
        """,
        "baby": """
            dog/puppy, cat/kitten, cow/calf, sheep/lamb, horse/foal, duck/duckling, bear/cub, lion/cub, goat/kid,
            chicken/chick, pig/piglet, deer/fawn, frog/tadpole, seal/pup, fox/cub, butterfly/caterpillar,
            elephant/calf, whale/calf
        """,
        "home": """
            bee/in a hive, bird/in a nest, rabbit/in a burrow, spider/in a web, bear/in a cave, horse/in a stable,
            dog/in a kennel, lion/on the savanna, penguin/on the ice, camel/in the desert, monkey/in the jungle,
            whale/in the ocean, frog/near a pond, mole/under the ground, wolf/in the forest, cow/on a farm, crab/on
            the beach, owl/in an old tree, beaver/in a dam, squirrel/in a tree, koala/in Australia, panda/in China,
            duck/by the lake, fox/in a den, bat/in a cave, kangaroo/in Australia, goat/in the mountains, shark/in the
            sea, hedgehog/in the garden, llama/in Peru
        """,
        "sound": """
            dog/bark, cat/purr, lion/roar, duck/quack, cow/moo, snake/hiss, wolf/howl, owl/hoot, bee/buzz, bird/sing,
            mouse/squeak, horse/neigh, parrot/talk, bear/growl, cricket/chirp
        """,
        "use": """
            hammer/hit a nail, saw/cut wood, broom/sweep the floor, spoon/eat soup, knife/slice bread, oven/bake a
            cake, fridge/keep food cold, kettle/boil water, lamp/light a room, clock/tell the time, map/find the way,
            umbrella/stay dry in the rain, key/open a door, pen/write a letter, camera/take a picture, needle/sew a
            button, ladder/climb up to the roof, bucket/carry water, towel/dry your hands, soap/wash your hands,
            pillow/rest your head, telescope/look at the stars, microscope/study tiny things, thermometer/measure the
            heat, ruler/measure a line, calculator/add long numbers, compass/find north, shovel/dig a hole,
            rake/gather leaves, mop/clean a wet floor, phone/call a friend, stamp/mail a letter, whistle/stop the
            game, pan/fry an egg, blender/mix fruit and milk, backpack/carry books, candle/make a soft light,
            brush/paint a wall, dictionary/look up a word, helmet/protect your head, sponge/wipe the table, grill/cook
            meat, wallet/hold money, calendar/plan the month, match/start a fire, magnet/pick up iron, printer/print a
            page, wrench/turn a bolt, axe/chop wood, rope/tie a knot, hose/water the plants
        """,
        "worker": """
            baker/makes bread and cakes, farmer/grows food, pilot/flies planes, doctor/helps sick people,
            teacher/works in a school, dentist/looks after teeth, chef/cooks in a restaurant, plumber/fixes pipes,
            writer/tells stories, painter/works with colors, sailor/works on a ship, tailor/sews clothes, barber/cuts
            hair, judge/works in a court, firefighter/puts out fires, librarian/takes care of books, gardener/looks
            after plants, carpenter/builds with wood, mechanic/repairs engines, musician/plays for a crowd,
            scientist/does experiments, astronaut/travels in space, detective/solves crimes, shepherd/watches the
            sheep, poet/plays with words, banker/counts money, florist/sells flowers, architect/draws plans for
            houses, surgeon/operates on patients, waiter/serves meals, driver/follows the road, guard/protects the
            building, actor/plays many roles, reporter/writes the news, photographer/takes pictures, pharmacist/sells
            medicine, coach/trains the team, translator/knows many languages, editor/corrects mistakes, captain/leads
            the crew, butcher/sells meat
        """,
        "do": """
            bake a cake, clean the kitchen, wash the dishes, water the plants, feed the cat, walk the dog, write a
            letter, call a friend, paint the fence, fix the roof, plant a tree, cook dinner, visit a museum, learn a
            new language, play the guitar, sing a song, draw a picture, ride a bicycle, climb a mountain, swim in the
            lake, run in the park, take a nap, drink some water, watch a movie, listen to music, pack a suitcase, open
            the window, close the door, count the stars, make some soup, build a house, catch a fish, buy some bread,
            sell old books, dance in the rain, study for the test, travel by train, explore the cave, help a neighbor,
            carry the groceries, repair the clock, fold the laundry, pick some apples, boil an egg, pour the tea, set
            the table, check the weather, plan a trip, book a hotel, drive to work, fly a kite, win a game, solve a
            puzzle, tell a story, share a meal, invite some friends, celebrate a birthday, wrap a present, light a
            candle, move the sofa, measure the wall, cut some wood, dig a hole, fill the bucket, exercise at home, sit
            by the fire, sleep outside, stay at home, wait for the bus, cross the street, park the car, save some
            money, pay the bill, order a pizza, try a new recipe, taste the sauce, mix the flour, collect stamps,
            practice the piano, record a song, print a photo, send a message, answer the phone, search the web, type a
            report, finish the homework, start a company, teach a class, meet an old friend, hug a friend, laugh at a
            joke, dream about flying, smile at a stranger, thank the driver, ask a question, explain the rules,
            describe the picture, compare the prices, choose a color, borrow a book, return the keys, find a coin,
            hide a gift, guess the answer, throw a ball, kick a ball, jump over a wall, chase a butterfly, follow the
            path, enter the race, train a puppy, enjoy the silence, protect the forest, grow tomatoes, shake the tree,
            camp near the river, hike through the woods, sail across the bay, translate a letter, design a poster,
            invent a machine, test the engine, deliver a package, support the team, bring some snacks, warm the milk,
            slice the bread, wear a warm coat, tie a knot, change a light bulb, charge the battery, update the
            calendar, organize the closet, think about the future, remember a name, forget the past, imagine a better
            world, trust a friend, quit smoking, push the cart, shut the gate, knock on the door, ring the bell, wave
            at the crowd, act in a play, argue about money, raise a child
        """,
        "creature_do": """
            sleep all day, run very fast, climb trees, swim well, live for many years, eat grass, dig holes, hunt at
            night, jump over fences, hide from people, carry heavy loads, hear quiet sounds, see in the dark, move
            slowly, drink a lot of water, make a lot of noise, love the sun, need fresh water, travel in groups, fight
            over food, play in the mud, guard their young, chase each other, wander far away, rest in the shade,
            survive in the cold, smell danger, follow their mother, stay awake at night, attack when scared
        """,
        "group": """
            people, children, students, tourists, workers, parents, scientists, customers, neighbors, teenagers,
            visitors, adults, experts, athletes, beginners, readers, players, families, guests, citizens
        """,
        "abstract": """
            time, money, love, friendship, health, happiness, freedom, hope, courage, patience, practice, luck,
            kindness, peace, wisdom, silence, honesty, success, music, knowledge, energy, sleep, respect, beauty,
            trust, imagination, memory, experience, work, truth, trouble, justice, curiosity, creativity, humor,
            power, nature, tradition, progress, history, safety, adventure, pleasure, comfort, discipline, effort,
            talent
        """,
        "topic": """
            the weather, the news, your trip, the project, the meeting, dinosaurs, the moon, the human body, robots,
            old castles, wild animals, healthy food, space travel, the solar system, the ocean, famous painters, your
            health, the stock market, family life, computers, the stars, magnets, deep sea fish, the history of Rome,
            ancient Egypt, modern art, electric cars, solar power, climate change, the rain forest, world records,
            train travel, bread baking, home repair, dreams, the brain, volcanoes, earthquakes, black holes, gravity,
            vitamins, mountain climbing, classical music, jazz, fairy tales, riddles, chess, birds of prey, insects,
            house plants, holidays, small business
        """,
        "event": """
            wedding, birthday party, concert, meeting, exam, interview, festival, game, race, trip, lesson, ceremony,
            parade, lecture, dance, funeral, graduation, conference, holiday, picnic, play, dinner, contest, auction,
            reunion, performance, appointment, vacation, journey, speech, workshop, sale
        """,
        "reason": """
            it is raining, the road is closed, the store is full, everyone is asleep, the train is late, it is too
            expensive, I need more time, the soup is too hot, we are almost there, the battery is empty, the baby is
            sleeping, the light is off, nobody is home, the sun is too strong, it is getting dark, the traffic is bad,
            the music is loud, I have a cold, the kids are hungry, the wind is strong, my back hurts, the door is
            locked, the phone is broken, tomorrow is a holiday, the milk is sour, the water is cold, it is very late,
            we won the game, I missed the bus
        """,
        "quantity": """
            a few, several, many, some, a lot of, plenty of, hundreds of, enough, too many, more, most of the, all
            the, a couple of, dozens of, thousands of, a handful of, two, three, four, five, six, seven, eight, nine,
            ten, twelve, fifteen, twenty, thirty, a hundred
        """,
        "measure": """
            a kilogram of, a pound of, a cup of, a bowl of, a bag of, a plate of, a piece of, a spoonful of, a box of,
            a jar of, a slice of, a little, some, a bit of, plenty of
        """,
        "time_unit": "second, minute, hour, day, week, month, year, decade",
        "length_unit": "mile, kilometer, meter, step, block, inch, yard",
        "position": """
            on, under, behind, next to, near, in front of, beside, below, above, on top of, close to, to the left of,
            to the right of, far from, across from, against
        """,
        "direction": "left, right, straight ahead, north, south, east, west, uphill, around the corner, upstairs",
        "count_of": """
            days/week/seven, months/year/twelve, minutes/hour/sixty, seconds/minute/sixty, hours/day/twenty four,
            legs/spider/eight, legs/insect/six, wheels/bicycle/two, wheels/car/four, sides/square/four,
            sides/triangle/three, arms/octopus/eight, strings/violin/four, strings/guitar/six, players/soccer
            team/eleven, weeks/year/fifty two, years/century/one hundred, years/decade/ten, eggs/dozen/twelve,
            cents/dollar/one hundred, letters/alphabet/twenty six, colors/rainbow/seven, fingers/hand/five,
            meters/kilometer/one thousand, bones/body/two hundred and six, points/star/five, legs/chair/four,
            days/leap year/three hundred and sixty six, keys/piano/eighty eight
        """,
        "book_like": "book, letter, newspaper, magazine, story, poem, novel, diary, recipe, dictionary, report, song",
        "mealtime": "breakfast, lunch, dinner, dessert, supper",
        "small_number": "two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, fifteen, twenty, thirty",
        "ordinal": """
            first, second, third, fourth, fifth, sixth, seventh, eighth, ninth, tenth, eleventh, twelfth, thirteenth,
            fifteenth, twentieth, last
        """,
    }.items()
}

# --- computed rows ----------------------------------------------------------------------------------------------------

_ONE_TO_TWENTY = range(1, 21)
_HOURS = range(1, 13)


def _union(*names: str) -> list[Row]:
    """First field of every row of several lists, each word once."""
    return [(word,) for word in dict.fromkeys(row[0] for name in names for row in BANKS[name])]


def _prefixed(prefix: str, name: str) -> list[Row]:
    return [(f"{prefix} {row[0]}",) for row in BANKS[name]]


BANKS |= {
    "sum": [_numbers(a, b, a + b) for a in _ONE_TO_TWENTY for b in (*_ONE_TO_TWENTY, 30, 40, 50)],
    "difference": [_numbers(a + b, b, a) for a in _ONE_TO_TWENTY for b in (*_ONE_TO_TWENTY, 30, 60)],
    "product": [_numbers(a, b, a * b) for a in range(2, 13) for b in range(2, 13)],
    "quotient": [_numbers(a * b, b, a) for a in range(2, 13) for b in range(2, 13)],
    "half": [_numbers(2 * a, a) for a in range(1, 51)],
    "count": [_numbers(a) for a in range(2, 100)],
    "large": [_numbers(a) for a in range(100, 1000, 7)],
    "next": [_numbers(a, a + 1) for a in range(100)],
    "time": [
        (f"{minutes}{number_words(hour)}",)
        for minutes in ("", "half past ", "quarter past ", "quarter to ", "ten past ", "twenty to ", "five to ")
        for hour in _HOURS
    ],
    "clock": [(f"{number_words(hour)} {number_words(m)}",) for hour in _HOURS for m in (10, 15, 20, 30, 40, 45, 50)],
    "month_after": [(a[0], b[0]) for a, b in zip(BANKS["month"], BANKS["month"][1:] + BANKS["month"][:1], strict=True)],
    "day_after": [(a[0], b[0]) for a, b in zip(BANKS["day"], BANKS["day"][1:] + BANKS["day"][:1], strict=True)],
    "any_animal": _union("animal", "bird", "sea_animal", "insect"),
    "produce": _union("fruit", "vegetable"),
    "edible": _union("food", "drink"),
    "thing": _union("kitchen", "furniture", "clothing", "tool", "device", "item", "vehicle", "instrument"),
    "small_thing": _union("kitchen", "tool", "item", "clothing"),
    "spot": _union("place", "nature"),
    "country": _union("capital"),
    "person": [*_union("name"), *_prefixed("my", "family"), *_prefixed("the", "job")],
    "relative": [*_prefixed("my", "family"), *_prefixed("your", "family")],
}

# --- openers and closers: whole short sentences around a core ---------------------------------------------------------

OPENERS = """
Yes, it is. No, not really. Of course. Good question! Well, let me think. I am glad you asked. Sure, no problem.
That is right. You are welcome. I see. Let me explain. Thank you for asking. That is a fair point. As far as I know,
yes. I have good news. Here is the answer. It depends. Do not worry. Never mind. Oh, I like that. Interesting!
Absolutely. Not exactly. I am not sure. Maybe. All right. Hello again! Good morning! Good evening! Certainly. I
agree with you. Wait a moment. Take your time. I understand. That sounds lovely. What a nice idea! Great! Perfect.
Sorry about that. I think so. Exactly. You have a point. Guess what? Listen. Let me see. Here is a fun fact. Nice to
hear from you. Okay. Welcome back! Probably. This one is easy. Just a second. To be honest, no. I hope so. Try this.
Believe it or not, yes. Quite so. My pleasure. Look. I remember that. Happy to help. That makes sense.
"""
CLOSERS = """
Would you like to hear more? I hope that helps. Does that make sense? What do you think? Let me know. Is that all
right? Isn't that nice? Good luck! Have fun! Enjoy! Take care. You can do it. That is all I know. Anything else?
Please try again. It is worth it. Trust me. Ask me anytime. Shall we go on? Tell me more. It is that simple. I am
quite sure. Don't forget. Everyone knows that. Can you believe it? See you soon! That is the plan. Is that what you
meant? I might be wrong. Sounds good? Keep going. It never fails. We will see. Just in case. Cheer up! Have a nice
day! How about you? No hurry. Be careful. Sleep well!
"""

# --- templates: {bank}, {bank2} another draw, {bank.1} a field, {bank.form} inflected, {a bank} with its article ---

TEMPLATES = """
The opposite of {opposite.0} is {opposite.1}.
The opposite of {opposite.1} is {opposite.0}.
{opposite.0} is the opposite of {opposite.1}.
If something is not {opposite.0}, it may be {opposite.1}.
The word {opposite.0} means the reverse of {opposite.1}.
Another word for {synonym.0} is {synonym.1}.
{synonym.0} and {synonym.1} mean nearly the same.
You could say {synonym.1} instead of {synonym.0}.
The words {synonym.1} and {synonym.0} are close in meaning.
The capital of {capital.0} is {capital.1}.
{capital.1} is the capital city of {capital.0}.
If you visit {capital.0}, be sure to see {capital.1}.
{capital.1} is the place where the government of {capital.0} meets.
{continent.0} is a country in {continent.1}.
You will find {continent.0} on the map of {continent.1}.
{country} and {country2} are both countries.
I would love to visit {country} one day.
People in {country} are very fond of {edible}.
My {family} moved from {country} to {country2}.
{a baby.0} has a baby called {a baby.1}.
A young {baby.0} is called {a baby.1}.
The {baby.1} follows the {baby.0}.
One day the little {baby.1} will become {a baby.0}.
{a home.0} lives {home.1}.
You can often see {a home.0} {home.1}.
The {home.0} makes its home {home.1}.
{sound.0.pl} {sound.1} when they want something.
Did you hear the {sound.0} {sound.1}?
The {any_animal} is {degree} {adj}.
The {animal} is bigger than the {insect}.
The {animal} likes to eat {edible}.
Have you ever seen {a any_animal}?
I saw {a any_animal} near the {spot}.
There is {a any_animal} {position} the {thing}.
{quantity} {animal.pl} live near the {spot}.
{animal.pl} {creature_do}.
Most {animal.pl} {creature_do}, but some do not.
Do {animal.pl} really {creature_do}?
A wild {animal} can {creature_do}.
The {animal} and the {bird} are {often} friends.
{a bird} can fly over the {nature}.
The {sea_animal} swims in the deep sea.
{sea_animal.pl} live in salt water.
A tiny {insect} landed on my {body}.
{name} has a pet {animal} with {color} ears.
My {animal} is called {name}.
The {color} {any_animal} is my favorite.
The {any_animal} looked {feeling}.
{made.0} is made from {made.1}.
You need {made.1} to make {made.0}.
They use {made.1} when they make {made.0}.
The {thing} is made of {material}.
Is this {thing} made of {material} or {material2}?
{material} is {short.er} than {material2}.
My {thing} is {color} and {color2}.
I like the {color} {thing} more than the {color2} one.
The color of {colored.0} is {colored.1}.
{colored.0} is usually {colored.1}.
Mix {color} with {color2} and see what happens.
{person} painted the {room} {color}.
You use {a use.0} to {use.1}.
{a use.0} helps you {use.1}.
To {use.1}, you need {a use.0}.
Take the {use.0} if you want to {use.1}.
What can you do with {a use.0}? You can {use.1}.
{a worker.0} {worker.1}.
A good {worker.0} {worker.1} every day.
My {family} is {a worker.0} who {worker.1}.
Who {worker.1}? The {worker.0} does.
{name} works as {a job} in {city}.
{name} wants to become {a job}.
The {job} is talking to the {job2}.
The {job} at the {place} is {degree} {person_adj}.
{a job} should be {person_adj} and {person_adj2}.
Please ask the {job} about the {thing}.
The {job} wore {a color} {clothing}.
{person} is {degree} {person_adj}.
{person} is {short.er} than {person2}.
{name} and {name2} will be {degree} {feeling} {when}.
{person} feels {feeling} about the {event}.
Why is {person} so {feeling}?
Are you {feeling} or just {feeling2}?
I am sorry that you feel {feeling}.
If you feel {feeling}, try to {do}.
When I am {feeling}, I like to {do}.
It is normal to be {feeling} before {a event}.
{name} was {feeling} because {reason}.
You don't have to be {feeling}.
I can't {do} because {reason}.
Let's {do}, since {reason}.
We should go home because {reason}.
I think {reason}.
{person} said that {reason}.
{person} {do.ed} {past}.
{person} {do.ed} and {do2.ed}.
{do.ing} is {degree} {idea_adj}.
{do.ing} makes {person} {feeling}.
{do.ing} is better than {do2.ing}.
I enjoy {do.ing} in {season}.
We {do.ed} together {past}.
They are {do.ing} right now.
{name} is {do.ing} with {name2}.
I {often} {do} on {day}.
You can {do} {when}.
Would you like to {do} {when}?
Do you want to {do} or {do2}?
Please {do} and then {do2}.
First {do}, then {do2}.
Before you {do}, {do2}.
After {do.ing}, {name} {do2.ed}.
It is {idea_adj} to {do}.
It is never too late to {do}.
How often do you {do}?
When did you last {do}?
Can you help me {do}?
Let's {do} {when}!
Don't forget to {do}.
{name} forgot to {do} {past}.
I will remind you to {do} {when}.
You should {do} more often.
Nobody wants to {do} {when}.
My {family} taught me how to {do}.
{name} and I will {do} at the {place}.
The {job} {do.ed} while the {job2} {do2.ed}.
{group} {often} {do} in the {part}.
{quantity} {group} came to {do}.
The {adj} {thing} is {position} the {furniture}.
The {small_thing} is {position} the {furniture} in the {room}.
Is there {a thing} in the {room}?
I put the {small_thing} {position} the {furniture}.
There are {quantity} {item.pl} in the {room}.
Where is my {adj} {thing}?
{person} bought {a adj} {thing} {past}.
{person} lost {a adj} {small_thing} at the {place}.
{name} gave {person} {a adj} {small_thing}.
My {family} has {a adj} {thing}.
That {thing} looks {degree} {adj}.
What {a adj} {thing}!
The {thing} is {short.er} than the {thing2}.
Which is {short.er}, the {thing} or the {thing2}?
The {thing} costs {count} dollars.
{a thing} costs more than {a small_thing}.
Can I borrow your {thing}?
Please bring {a small_thing} and {a small_thing2}.
We need {quantity} {item.pl} for the {event}.
The {device} is not working {when}.
Turn on the {device} and wait {small_number} {time_unit.pl}.
The {device} is {position} the {furniture}.
{a adj} {device} can save you {abstract}.
{a vehicle} is {short.er} than {a vehicle2}.
{name} took {a vehicle} from {city} to {city2}.
The {vehicle} leaves at {time}.
The {vehicle} to {city} is {small_number} {time_unit.pl} late.
We traveled across {country} by {vehicle}.
It takes {count} {time_unit.pl} to reach {city}.
{city} is {a degree} {idea_adj} place to live.
{city} is {short.er} than {city2}.
The weather in {city} is {weather} {when}.
It was {weather} and {weather2} in {city} {past}.
It is {weather} outside, so wear your {clothing}.
In {month}, it is often {weather} in {country}.
{season} is my favorite season because it is {weather}.
The {storm} will reach {city} {when}.
The {storm} damaged the {thing} {past}.
I love the {storm} in {month}.
Expect {storm} and {storm2} in the {part}.
It is {time}.
The time is {clock}.
It is {clock} in {city}.
The {event} starts at {time}.
Wake me up at {clock}, please.
The {event} is on {day} at {time}.
The {place} opens at {time} and closes at {time2}.
Your {event} with {person} is at {clock}.
I set the alarm for {clock} on {day}.
{day_after.1} comes after {day_after.0}.
The day before {day_after.1} is {day_after.0}.
{month_after.1} is the month after {month_after.0}.
{month_after.0} comes before {month_after.1}.
My birthday is on the {ordinal} of {month}.
{name} was born in {month}.
The {event} is in {month}.
Today is {day}, the {ordinal} of {month}.
{sum.0} plus {sum.1} is {sum.2}.
{sum.0} and {sum.1} make {sum.2}.
If you add {sum.0} and {sum.1}, you get {sum.2}.
{difference.0} minus {difference.1} is {difference.2}.
Take {difference.1} from {difference.0} and you have {difference.2} left.
{product.0} times {product.1} equals {product.2}.
{quotient.0} divided by {quotient.1} is {quotient.2}.
Half of {half.0} is {half.1}.
Twice {half.1} is {half.0}.
The number after {next.0} is {next.1}.
{next.0} is one less than {next.1}.
{count} is more than {small_number}.
There are {large} {item.pl} in the {place}.
{name} counted {large} {animal.pl} in {small_number} {time_unit.pl}.
The {book_like} has {large} pages.
{name} is {count} years old.
The room number is {large}.
It is about {large} {length_unit.pl} from {city} to {city2}.
There are {count_of.2} {count_of.0} in {a count_of.1}.
{a count_of.1} has {count_of.2} {count_of.0}.
{person} finished {ordinal} in the {event}.
The {place} is on the {ordinal} floor.
Turn {direction} at the {place}.
Go {direction} for {small_number} blocks, then turn {direction2}.
The {place} is {position} the {place2}.
You will find the {place} {position} the {spot}.
How far is the {place} from the {place2}?
Walk past the {place} and go {direction}.
Is there {a place} near the {spot}?
Let's meet at the {place} at {time}.
{person} lives {position} the {spot}.
We walked from the {spot} to the {spot2}.
The {adj} {spot} is {small_number} {length_unit.pl} away.
The {nature} near {city} is {degree} {adj}.
The {nature} is {short.er} than the {nature2}.
{quantity} {plant.pl} grow near the {nature}.
The {plant} needs {measure} water and sunshine.
I planted {a plant} {position} the {place}.
{a plant} can grow {short} and {short2}.
{planet} is a planet in our solar system.
{planet} is far away from {planet2}.
Could people ever live on {planet}?
You can see {planet} with {a adj} telescope.
I would like {measure} {edible}, please.
Would you like {edible} or {edible2}?
{edible} tastes {degree} {taste}.
{edible} goes well with {edible2}.
I had {edible} and {edible2} for {mealtime}.
This {edible} is too {taste} for me.
Add {measure} {food} to the {kitchen}.
The recipe needs {measure} {food} and {measure2} {food2}.
{person} ate {a taste} {meal} with {edible}.
{a taste} {produce} is better than {a taste2} one.
{produce.pl} and {produce2.pl} are good for you.
Cut the {produce} with {a adj} knife.
The {fruit} is {color} and {taste}.
{fruit.pl} grow well in {country}.
Put the {produce.pl} in the {kitchen}.
We need {edible}, {edible2} and {produce.pl}.
{person} never eats {food} without {food2}.
Do you prefer {drink} or {drink2}?
{drink} is {taste}, but {drink2} is {taste2}.
The {meal} with {food} costs {count} dollars.
The {kitchen} is full of {food}.
Wash the {kitchen} and the {kitchen2}, please.
{name} plays the {instrument} {degree} well.
The {instrument} sounds {short.er} than the {instrument2}.
I practice the {instrument} {small_number} {time_unit.pl} before the concert.
{sport} is more fun than {sport2}.
{person} plays {sport} {when}.
Our team lost the {sport} game by {small_number} points.
{name} studies {subject} in {city}.
{subject} is {degree} {idea_adj}.
I like {subject} more than {subject2}.
The {subject} exam is on {day}.
Do you want to learn about {subject} or {subject2}?
{person} knows a lot about {subject}.
{name} speaks {language} and {language2}.
{language} is {idea_adj} to learn.
How do you say {thing} in {language}?
The {job} translated the {book_like} into {language}.
My {body} hurts when I {do}.
{name} hurt one {body} while {do.ing}.
Raise your {body} slowly.
The {body} is connected to the {body2}.
The {animal} has {a adj} {body}.
{person} spoke {manner}.
The {any_animal} moved {manner} toward the {spot}.
{name} {manner} {do.ed}.
Please speak {manner} and {manner2}.
The {job} {do.ed} {manner}.
{abstract} is more important than {abstract2}.
{abstract} and {abstract2} go hand in hand.
With {abstract} you can {do}.
Nothing is {short.er} than {abstract}.
{abstract} brings {abstract2}.
You can't buy {abstract} with {abstract2}.
Every {job} needs {abstract}.
There is no {abstract} without {abstract2}.
We can talk about {topic}.
I know a lot about {topic}.
Tell me what you know about {topic}.
Are you interested in {topic} or {topic2}?
{person} read {a adj} book about {topic}.
I have {a idea_adj} story about {topic}.
Learning about {topic} is {degree} {idea_adj}.
{person} asked me about {topic} {past}.
The {event} was {degree} {idea_adj}.
The {event} was {idea_adj} and {idea_adj2}.
How was the {event} {past}?
{person} is ready for the {event}.
{person} can't come to the {event} because {reason}.
I hope the {event} is not too {idea_adj}.
Is the {shape} {short.er} than the {shape2}?
Draw {a shape} {position} {a shape2}.
The {adj} {thing} has the shape of {a shape}.
Draw {a color} {shape} on the paper.
{relative} will call {when}.
Is {relative} coming to the {event}?
{relative} loves {edible} and {sport}.
I met {relative} at the {place} {past}.
{name}, please {do}.
Hello {name}, how was your {event}?
Good luck with the {event}, {name}!
Thank you, {name}, that was {degree} {person_adj} of you.
Yes, {name} is {feeling}.
No, the {thing} is not {adj}.
Yes, you can {do}.
No, {person} did not {do}.
Maybe you could {do}.
That is {degree} {idea_adj}.
How {idea_adj}!
The {thing}? It is {position} the {furniture}.
I am {feeling}.
They were {degree} {feeling}.
Stay {person_adj}.
Be {person_adj} with the {thing}.
{short.er} is not always better.
{a adj} idea!
Not {adj}, but {adj2}.
If it is {weather} {when}, we will {do}.
If {person} calls, say that {reason}.
When {name} {do.ed}, it was {weather}.
Although {reason}, {name} {do.ed}.
The {thing} that {name} bought is {adj}.
The {job} who {do.ed} is {person_adj}.
Not only {name} but also {name2} {do.ed}.
Either {do} or {do2}.
Neither the {thing} nor the {thing2} is {adj}.
While {name} was {do.ing}, I {do2.ed}.
{person} did not {do} {past}.
The more you {do}, the {short.er} it gets.
I wish I could {do} like {person}.
Once upon a time, {a person_adj} {job} found {a adj} {item}.
In the {room} there was {a adj} {thing}.
Between the {place} and the {place2} there is {a nature}.
From {month} to {month2}, the {place} is {opposite.0}.
Without {a thing}, you can't {do}.
Half of the {group} like {food}.
Some {group} prefer {sport}, others like {subject}.
{group} from {country} visit {city} in {month}.
Do {group} in {country} like {sport}?
Only {small_number} {group} were at the {event}.
Remember the word {secret}.
The word {secret} is easy to say.
Can you use the word {secret} in a sentence?
Say {secret}, then say {secret2}.
I thought of the words {secret} and {secret2}.
{name} wrote {secret} on the wall.
Did you say {secret} or {secret2}?
{secret}, {secret2} and {secret3} are all words.
{adj}, {adj2} and {adj3}, that is how I like my {thing}.
"""

FREE = """
I am happy to help you with that. Water boils at one hundred degrees. The sun rises in the east and sets in the west.
The earth moves around the sun once a year. The moon shines because it reflects the light of the sun. Ice is frozen
water. Steam is water in the form of a gas. Plants need light, water and air to grow. Bees make honey from the nectar
of flowers. A rainbow has seven colors. Cats sleep most of the day. Dogs can smell much better than people. Whales are
not fish, they are mammals. A spider is not an insect. Bats fly at night and hang upside down. Penguins cannot fly,
but they swim very well. Snow falls when the air is cold enough. Thunder is the sound that lightning makes. Light
travels faster than sound. The heart pumps blood through the body. We breathe air into our lungs. Your bones become
stronger when you exercise. Milk is good for your teeth and bones. Drink a glass of water before you go out. Sugar is
sweet, but salt is not. Wash your hands before you eat. Brush your teeth twice a day. Look both ways before you cross
the street. Never leave a candle burning alone. Keep your passport in a safe place. Wear a helmet when you ride a
bicycle. Put on a coat, it is cold outside. Take an umbrella, it may rain later. Open a window and let some fresh air
in. Try to sleep at least eight hours a night. A short walk can clear your head. A good friend is worth more than
gold. Practice a little every day and you will get better. Small steps lead to great things. Nobody is perfect.
Everybody makes mistakes. You learn more from failure than from success. Ask for help when you need it. There is no
hurry, take all the time you need. I do not know the answer, but we can find out together. I could not hear you,
please say it again. Could you speak a little louder? Please repeat the question slowly. I will set a timer for ten
minutes. Your timer is done. The lights in the kitchen are off now. I turned the music down. The next song is an old
favorite. Here is what I found for you. Your train leaves from platform four. The bus stops in front of the library.
The ticket costs five euros. The hotel is a short walk from the beach. Breakfast is served from seven to ten. The key
to your room is at the desk. The museum is closed on Mondays. The shop around the corner sells fresh bread. The bridge
was built a hundred years ago. There is a lot of traffic this morning. You should arrive in about half an hour. The
flight was delayed by the storm. Turn left after the church and follow the river. The station is right behind the post
office. Tomorrow will be sunny and warm. It will rain in the afternoon. The wind comes from the north today. The
nights are long in winter and short in summer. The leaves turn red and yellow in autumn. Flowers bloom in spring. The
snow melted in the morning sun. A cool breeze came from the sea. The clouds are moving in from the west. I love the
smell of fresh coffee. The soup needs a pinch of salt. Let the dough rest for an hour. Bake the bread until it is
golden brown. Stir the sauce so that it does not burn. Cut the onions into small pieces. The tea is too hot to drink.
Would you like sugar in your coffee? Dinner will be ready in twenty minutes. An apple a day keeps the doctor away. Too
much chocolate is bad for your stomach. The cheese smells strong but tastes mild. The children played in the garden
all afternoon. My sister reads a story to her son every night. Our neighbor grows tomatoes on the balcony. Grandmother
knits warm socks for everyone. The twins look exactly the same. He works late on Fridays. She speaks four languages.
They moved to a new house last month. We have known them for years. His brother is taller than he is. Her office is on
the third floor. Their dog barks at every stranger. My uncle drives a truck. Your cousin sent you a postcard. The baby
smiled at me. The students listened quietly. The teacher wrote a word on the board. The doctor told him to stay in
bed. The judge asked a simple question. The pilot landed the plane safely. The farmer gets up before the sun. The
painter mixed blue and yellow to get green. The crowd cheered when the band came on stage. The singer forgot the words
of the song. The violin has four strings. The piano has black and white keys. Music can make you happy or sad. She
hummed the tune all day long. Our team won by two goals. The game ended in a draw. He ran as fast as he could. The
race begins at noon. Chess is a game for two players. You need a ball and a wall. Everyone clapped at the end. The
winner got a silver cup. A week has seven days. A year has twelve months. A leap year has one extra day. Two halves
make a whole. A triangle has three sides and three corners. A square has four equal sides. A circle has no corners at
all. Ten is an even number and seven is an odd one. Three fives are fifteen. A dozen is twelve. Zero is less than one.
A century is one hundred years. A minute has sixty seconds. Half an hour is thirty minutes. Gold is heavier than
silver. Glass breaks easily. Iron can rust when it gets wet. Wood floats on water. A magnet pulls iron but not wood.
Paper burns quickly. Stones sink in water. Diamonds are very hard. Rubber comes from a tree. Wool comes from sheep.
Cotton grows on a plant. Leather is made from animal skin. Africa is a very large continent. Rivers flow down to the
sea. Deserts get little rain. The ocean is deep and salty. Mountains are higher than hills. An island has water on
every side. Volcanoes can be dangerous. The map shows every road. The north pole is covered with ice. There are many
islands in Greece. Tea is popular in England and in China. The oldest part of the city lies by the river. The castle
stands on a hill. The lighthouse guides ships at night. The library has thousands of books. You may borrow three books
at a time. Please be quiet in the reading room. Write your name at the top of the page. Read the first line out loud.
Close your book and put away your pencil. The first letter of the alphabet is easy to remember. A sentence begins with
a capital letter. Poems do not have to rhyme. History teaches us about the past. Science asks how things work. Art
lets us see the world with new eyes. Robots can build cars. Computers follow rules. A phone needs a battery. The
screen is too bright for my eyes. Please charge the phone before you leave. The printer is out of paper. Did you save
the file? The password is wrong. Send me the address and I will find the way. I have three new messages for you. The
meeting was moved to Thursday. You have nothing planned for tomorrow. Shall I call your mother? I added milk and eggs
to your list. The package arrived this morning. Someone is at the door. The doorbell rang twice. I think I heard a
noise. Happy birthday to you! Merry Christmas! Happy New Year! Congratulations on your new job! Well done! Nice work!
Good night and sweet dreams. Good afternoon, how are you? It is nice to meet you. See you tomorrow. Goodbye for now.
Thank you so much. You are very kind. Please forgive me. Excuse me, may I come in? Please sit down. Make yourself at
home. I am fine, thank you. I feel much better today. I am a little tired. I was worried about you. I miss you a lot.
That made me laugh. This is a sad story. What a beautiful day! What a surprise! How strange! How lovely to see you!
Why not? Who knows? Who was that? Where are you going? What time is it? When will you be back? Which one do you like?
Whose coat is this? How much does it cost? How old are you? How long did it take? Are you ready? Is it far from here?
Did you sleep well? Have you had lunch yet? Can you swim? Do you believe me? May I ask you something? Is anybody
there? Shall we dance? Could you pass the salt? Would you mind closing the door? Will it hurt? Was it expensive? No,
thank you. Yes, please. Not yet. Not today. Almost done. Over there. Right here. Come in. Go ahead. Hold on. Hurry up!
Watch out! Look at that! Stop it! Help me! Be quiet, please. Follow me. Wait for me. Let me try. Let us begin. I can
do it myself. I did it on purpose. I changed my mind. I have no idea. I told you so. I can hardly wait. It was just a
dream. It happened so fast. It doesn't matter. It wasn't my fault. It's up to you. It's a secret. That's enough.
That's impossible. That's what I thought. There's nothing left. There's always hope. Here's your change. We're almost
there. We'll be fine. They're on the way. You're right. You'll love it. He's asleep. She's my best friend. Don't touch
the stove, it is still hot. Don't give up now. Don't be afraid of the dark. Don't believe everything you hear. I
wouldn't worry about it. I couldn't agree more. They haven't called yet. He hasn't eaten since noon. We aren't late.
She won't tell anyone. You shouldn't drive so fast. I'd rather stay at home. I've seen it before. We've got plenty of
time. The early bird catches the worm. Better late than never. Practice makes perfect. Time flies when you are having
fun. All that glitters is not gold. Every cloud has a silver lining. Actions speak louder than words. Honesty is the
best policy. Two heads are better than one. Many hands make light work. Where there is smoke, there is fire. Haste
makes waste. A picture is worth a thousand words. You can't judge a book by its cover. The grass is always greener on
the other side. Rome wasn't built in a day. When the cat is away, the mice will play. Curiosity killed the cat. Easy
come, easy go. Once there was a king who had three daughters. The princess lived in a tower. The dragon slept on a
pile of gold. The little fox was cleverer than the wolf. The queen wore a heavy crown. A giant opened the gate and
laughed. The old man told us about the war. The woman in the red dress waved at me. The boy found a shell on the
beach. The girl counted the ships in the harbor. The sailor dreamed of home. The thief hid behind the curtain. The
stars look small because they are far away. Mars looks red in the night sky. Jupiter is bigger than every other
planet. Saturn is known for its rings. The moon has no air and no water. An astronaut floats inside the ship. The
brain never really sleeps. The skin protects us. The ear hears and the eye sees. We taste with the tongue. Blood is
red because of iron. Laughing is good for your health. Yawning can be catching. Your nose knows more than you think.
"""

_SENTENCE_END = re.compile(r"(?<=[.?!]) ")
_SLOT = re.compile(r"\{(?P<article>a )?(?P<bank>[a-z_]+)(?P<draw>\d?)(?:\.(?P<field>\d))?(?:\.(?P<form>[a-z]+))?\}")
_WORD = re.compile(r"[A-Za-z']+")


def _split(text: str) -> list[str]:
    return _SENTENCE_END.split(" ".join(text.split()))


@cache
def _demo_sentences() -> frozenset[str]:
    """Sentences of the demo's replies, which must stay unseen."""
    lines = [json.loads(line) for line in DEMO_DIALOGUES.read_text(encoding="utf-8").splitlines()]
    return frozenset(s.lower() for line in lines if line["role"] == "assistant" for s in _split(line["text"]))


class _Deck(Generic[T]):
    """Deals its items in shuffled rounds, so that all are used equally often."""

    def __init__(self, items: Iterable[T], rng: random.Random) -> None:
        self._items = list(dict.fromkeys(items))
        self._left: list[T] = []
        self._rng = rng

    def deal(self) -> T:
        if not self._left:
            self._left = self._rng.sample(self._items, len(self._items))
        return self._left.pop()


class _Writer:
    """Fills templates, with all draws from one random generator."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.openers = _Deck(_split(OPENERS), rng)
        self.closers = _Deck(_split(CLOSERS), rng)
        self.free = _Deck(_split(FREE), rng)
        templates = TEMPLATES.strip().splitlines()
        self.templates = _Deck(templates, rng)
        self.banks = {name: _Deck(rows, rng) for name, rows in BANKS.items()}
        listed = (field for rows in BANKS.values() for row in rows for field in row)
        texts = [OPENERS, CLOSERS, FREE, _SLOT.sub(" ", TEMPLATES), *listed]
        words = sorted({word for text in texts for word in _WORD.findall(text) if len(word) > 2})
        lower = {word for word in words if word.islower()}
        self.banks["secret"] = _Deck([(w,) for w in words if w.lower() not in lower or w.islower()], rng)

    def core(self) -> str:
        if self.rng.random() < 0.06:
            return self.free.deal()
        drawn: dict[tuple[str, str], Row] = {}

        def fill(slot: re.Match[str]) -> str:
            key = slot["bank"], slot["draw"]
            if key not in drawn:
                drawn[key] = self.banks[slot["bank"]].deal()
            word = drawn[key][int(slot["field"] or 0)]
            if slot["form"]:
                word = inflect(word, slot["form"])
            if slot["article"]:
                word = ("an " if _AN.match(word) else "a ") + word
            return word

        text = _SLOT.sub(fill, self.templates.deal())
        return text[0].upper() + text[1:]

    def utterance(self) -> str:
        core = self.core()
        draw = self.rng.random()
        if draw < 0.12:
            return f"{self.openers.deal()} {core}"
        if draw < 0.24:
            return f"{core} {self.closers.deal()}"
        if draw < 0.36:
            return f"{core} {self.core()}"
        return core


def sentences(count: int, seed: int) -> list[str]:
    """``count`` distinct utterances of 10 to 110 characters, the same for the same seed; no sentence of a demo reply.

    Of every few candidates, the one richest in words that are rare so far is kept: this evens out word frequencies.
    Raises ValueError if the templates run out.
    """
    writer = _Writer(random.Random(seed))
    demo = _demo_sentences()
    found: dict[str, None] = {}
    uses: Counter[str] = Counter()  # of whole sentences and, in lower case, of words

    def rarity(text: str) -> float:
        words = _WORD.findall(text.lower())
        return sum(1 / (1 + uses[word]) for word in words) / math.sqrt(len(words))  # the root halves the lead of length

    def candidates() -> Iterator[str]:
        for _ in range(60 * count + 1000):
            text = writer.utterance()
            parts = _split(text)
            if (
                text not in found
                and MIN_CHARS <= len(text) <= MAX_CHARS
                and all(uses[part] < MAX_SENTENCE_USES and part.lower() not in demo for part in parts)
            ):
                yield text

    stream = candidates()
    while len(found) < count:
        choice = list(islice(stream, CANDIDATES))
        if not choice:
            raise ValueError(f"the templates give only {len(found)} of {count} sentences")
        text = max(choice, key=rarity)
        found[text] = None
        uses.update(_WORD.findall(text.lower()))
        uses.update(_split(text))
    return list(found)


def held_out(sentence: str) -> bool:
    """Whether a sentence belongs to the test split: 2 % by its CRC-32, whatever its case."""
    return crc32(sentence.lower().encode()) % 100 < 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Print training sentences as JSON lines.")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for number, text in enumerate(sentences(arguments.count, arguments.seed), start=1):
        split = "test" if held_out(text) else "train"
        print(json.dumps({"id": f"nano-{number:06d}", "text": text, "role": "assistant", "split": split}))


if __name__ == "__main__":
    main()
