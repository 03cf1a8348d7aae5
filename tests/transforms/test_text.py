"""Texts of many scripts: what their words are, how they are normalized, and the error rates of transcripts."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import jiwer
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.transforms.text import error_rate, join, normalize, pieces, words_of

EVERY_SCRIPT = (
    "aéßİ5½Ⅳ'-.,!? \n\u00a0\u200b\u200d\u00ad“”क\u093f।東、。ー々〇ｶﾞ\u3099Ａ１ก\u0e33\u0e4d\u0e49เแ၁က\u102cក\u17d2រ"
    "한\u1112\u0301شَّـ؟שׁ❤\ufe0f1\u20e3"
)


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("", []),
        (" \n\t ", []),
        ("one", ["one"]),
        ("  Hello,   world! ", ["Hello", "world"]),
        ("“Don't,” he said -- softly…", ["Don't", "he", "said", "softly"]),
        ("a well-known fact (1984).", ["a", "well-known", "fact", "1984"]),
        ("see https://example.org/a?b=1, U.S. 10:30", ["see", "https://example.org/a?b=1", "U.S", "10:30"]),
        ("- — ... ?! ♪ 🙂", []),
        ("❤️ 👍🏽 👨‍👩‍👧 🏳️‍🌈", []),
        ("\u0301 \ufe0f", []),
        ("¿Qué? naïve\u00a0café", ["Qué", "naïve", "café"]),
        ("nai\u0308ve", ["nai\u0308ve"]),
        ("हिन्दी।यह", ["हिन्दी", "यह"]),
        ("مرحبا،كيف؟", ["مرحبا", "كيف"]),
        ("བཀྲ་ཤིས་བདེ་ལེགས།", ["བཀྲ", "ཤིས", "བདེ", "ལེགས"]),
        ("ሰላም፡ዓለም።", ["ሰላም", "ዓለም"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("今天天气很好。", list("今天天气很好")),
        ("《我用iPhone15》，iPad也行！", ["我", "用", "iPhone15", "iPad", "也", "行"]),
        ("人々は〇時にコーヒー", list("人々は〇時にコーヒー")),
        ("ﾊﾞｽ、が", ["ﾊﾞ", "ｽ", "が"]),
        ("น้ำเด็กที่", ["น้ำ", "เ", "ด็", "ก", "ที่"]),
        ("ພາສາລາວ", ["ພ", "າ", "ສ", "າ", "ລ", "າ", "ວ"]),
        ("ក្រុមហ៊ុន", ["ក្រុ", "ម", "ហ៊ុ", "ន"]),
        ("မြန်မာစာ", ["မြ", "န်", "မာ", "စာ"]),
        ("2024年", ["2024", "年"]),
        ("ＡＢＣ１２", ["ＡＢＣ１２"]),
    ],
)
def test_words_and_characters_of_every_script(text: str, symbols: list[str]) -> None:
    assert [word.symbol for word in words_of(text)] == symbols


@given(st.text(st.sampled_from(EVERY_SCRIPT) | st.characters(exclude_categories=["Cs"]), max_size=40))
def test_words_are_slices_of_the_text_in_order(text: str) -> None:
    words = words_of(text)
    assert all(text[start:end] == symbol for symbol, start, end in words)
    assert all(one.char_end <= next_.char_start for one, next_ in pairwise(words))
    assert all(regex.match(r"[\p{L}\p{N}]", word.symbol) for word in words)
    spoken = [letter.start() for letter in regex.finditer(r"[\p{L}\p{N}]", text)]
    assert all(any(word.char_start <= place < word.char_end for word in words) for place in spoken)


@given(st.text(st.sampled_from(EVERY_SCRIPT) | st.characters(exclude_categories=["Cs"]), max_size=40))
def test_normalizing_twice_changes_nothing_and_loses_no_character(text: str) -> None:
    once = normalize(text, "")
    assert normalize(once, "") == once == " ".join(once.split())
    assert "".join(pieces(once)) == once.replace(" ", "")


SAME = {
    "marks of Hindi": ("hi", "नमस्ते, दुनिया!", "नमस्ते दुनिया"),
    "nukta, composed or not": ("hi", "क़लम", "क\u093cलम"),
    "digits that are newer than Python": ("", "\U00011f51", "\U00011f51"),
    "digits of Hindi": ("hi", "१९४७", "1947"),
    "marks of Tamil": ("ta", "வணக்கம்.", "வணக்கம்"),
    "Arabic vowel signs and tatweel": ("ar", "مَرْحَبًا بِكُـــمْ", "مرحبا بكم"),
    "hamza, composed or not": ("ar", "أنا", "ا\u0654نا"),
    "Arabic digits": ("ar", "١٢", "12"),
    "Persian joiner": ("fa", "می\u200cخواهم", "میخواهم"),
    "Hebrew points": ("he", "שָׁלוֹם", "שלום"),
    "Turkish dotted I": ("tr", "İSTANBUL", "istanbul"),
    "Turkish dotless I": ("tr", "ISPARTA", "ısparta"),
    "dotted I elsewhere": ("de", "İstanbul", "istanbul"),
    "German sharp s": ("de", "STRASSE", "Straße"),
    "Greek last sigma": ("el", "ΟΔΟΣ", "οδος"),
    "accent, composed or not": ("fr", "été", "e\u0301te\u0301"),
    "Ukrainian apostrophes": ("uk", "пʼять", "п'ять"),
    "full-width letters and digits": ("ja", "ＡＢＣ１２３", "abc123"),
    "half-width kana": ("ja", "ｶﾞｷﾞ", "ガギ"),
    "voicing mark apart": ("ja", "か\u3099", "が"),
    "Chinese punctuation": ("zh", "你好，世界！", "你好 世界"),
    "zero-width space": ("th", "ภาษา\u200bไทย", "ภาษา ไทย"),
    "sara am, typed in two": ("th", "น้ำ", "น\u0e49\u0e4d\u0e32"),
    "sara am, tone inside": ("th", "น้ำ", "น\u0e4d\u0e49\u0e32"),
    "sara ae, typed as two sara e": ("th", "แม่", "เเม่"),
    "Lao am": ("lo", "ນ້ຳ", "ນ\u0ecd\u0ec9\u0eb2"),
    "Korean syllables, composed or not": ("ko", "한국", unicodedata.normalize("NFD", "한국")),
    "emoji and what follows them": ("de", "Gut ❤️👍🏽", "gut"),
    "soft hyphen and byte order mark": ("de", "\ufeffDonau\u00adschiff", "donauschiff"),
    "brackets": ("ja", "東京（とうきょう）", "東京"),
}


@pytest.mark.parametrize("name", SAME)
def test_two_spellings_of_one_word_are_no_error(name: str) -> None:
    language, one, other = SAME[name]
    assert normalize(one, language) == normalize(other, language) != ""
    assert error_rate(one, normalize(other, language), language).rate == 0


def test_marks_that_spell_a_word_stay_and_tell_words_apart() -> None:
    assert normalize("नमस्ते दुनिया", "hi") == "नमस्ते दुनिया"
    assert error_rate("की", normalize("कि", "hi"), "hi") == (1.0, "word")
    assert error_rate("ม้า", normalize("มา", "th"), "th") == (0.5, "character")
    assert error_rate("が", normalize("か", "ja"), "ja") == (1.0, "character")


ERRORS = {
    "Chinese": ("今天天气很好。", "今天天气不好", "zh", 1 / 6, "character"),
    "Chinese that is called English": ("今天天气很好。", "今天天气不好", "en", 1 / 6, "character"),
    "Cantonese": ("佢哋喺邊度", "佢哋係邊度", "yue", 1 / 5, "character"),
    "Japanese, as spaced as it likes": ("東京 は 晴れ", "東京は雨", "ja", 2 / 5, "character"),
    "Korean": ("오늘 날씨가 좋다", "오늘 날씨 좋다", "ko", 1 / 3, "word"),
    "Thai": ("สวัสดี", "สวัสดิ", "th", 1 / 4, "character"),
    "Hindi": ("यह एक किताब है", "यह एक कताब है", "hi", 1 / 4, "word"),
    "Hindi that is called English": ("यह एक किताब है", "यह एक कताब है", "en", 1 / 4, "word"),
    "Japanese that is called English": ("かぎがある", "かきかある", "en", 2 / 5, "character"),
    "code-switching": ("我想 book 一张 ticket", "我想 cook 一张 ticket", "zh", 1 / 6, "mixed"),
    "a word inside Chinese": ("我用iPhone", "我用 iphone", "zh", 0, "mixed"),
    "digits beside characters": ("2024年", "2025年", "zh", 1 / 5, "character"),
    "digits in a language of characters": ("1998", "1999", "ja", 1 / 4, "character"),
    "digits elsewhere": ("im Jahr 1998", "im Jahr 1999", "de", 1 / 3, "word"),
    "Latin words in a language of characters": ("OK Google", "OK", "zh", 1 / 2, "word"),
    "English numbers": ("Mr. Smith's 2 dogs", "mister smith's two dogs", "en", 0, "word"),
    "an empty transcript": ("今天", "", "zh", 1, "character"),
    "another script": ("今天", "jin tian hao", "zh", 3 / 2, "character"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_counted_in_the_unit_of_the_script(name: str) -> None:
    reference, heard, language, rate, unit = ERRORS[name]
    assert error_rate(reference, normalize(heard, language), language) == (pytest.approx(rate), unit)


@pytest.mark.parametrize("reference", [None, "", " \u200b\ufeff", "…?!", "❤️", "(laughs)", "。"])
@pytest.mark.parametrize("heard", ["", "word"])
@pytest.mark.parametrize("language", ["en", "zh", ""])
def test_without_words_there_is_no_rate(reference: str | None, heard: str, language: str) -> None:
    assert error_rate(reference, heard, language) == (None, None)


@given(st.lists(st.sampled_from(["mister", "o'clock", "$20", "1.5%", "well-known", "it's"]), min_size=1))
def test_english_is_counted_as_published_rates_are(words: list[str]) -> None:
    from whisper.normalizers import EnglishTextNormalizer

    reference, heard = " ".join(words), " ".join(words[1:])
    whisper = EnglishTextNormalizer()
    assert normalize(reference, "en-US") == whisper(reference).strip()
    found = error_rate(reference, normalize(heard, "en"), "en")
    assert found == (pytest.approx(jiwer.wer(whisper(reference).strip(), whisper(heard).strip())), "word")


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["We have seen.", "How quietly!"], "We have seen. How quietly!"),
        (["我们看到了。", "多么安静"], "我们看到了。多么安静"),
        (["สวัสดี", "ครับ"], "สวัสดีครับ"),
        (["我用", "Python"], "我用 Python"),
        (["", "한국어", "", "문장"], "한국어 문장"),
        ([], ""),
    ],
)
def test_segments_are_joined_as_their_script_writes(texts: list[str], joined: str) -> None:
    assert join(texts) == joined
