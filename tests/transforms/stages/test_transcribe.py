"""Both backends on real speech: every sentence, real times, scores that hold, fallback for failures alone."""

from __future__ import annotations

from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch

from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.asr.base import DecodedWindow, Encoded
from echo_targets.transforms.models.asr.long_form import DecodingRules, LongForm, Transcription
from echo_targets.transforms.models.asr.phrases import Phrase
from echo_targets.transforms.models.asr.registry import BACKENDS
from echo_targets.transforms.models.whisper.encoder import WINDOW_SAMPLES
from echo_targets.transforms.models.whisper.weights import EMBEDDED, load_whisper
from echo_targets.transforms.stages.transcribe import Transcribe, TranscribeParameters, is_other_language
from echo_targets.transforms.text import normalize
from tests.transforms.rows import apply, window

FLOOR = 1e-4
"""Level of the noise in a made pause: a microphone never gives digital silence."""


def transcriber(**parameters: object) -> Transcribe:
    transform = Transcribe(TranscribeParameters.model_validate(parameters))
    transform.setup()
    return transform


@pytest.fixture(scope="module")
def fast() -> Transcribe:
    return transcriber()


@pytest.fixture(scope="module")
def plain() -> Transcribe:
    return transcriber(backend="openai-whisper")


@pytest.fixture(scope="module", params=["fast", "plain"])
def either(request: pytest.FixtureRequest) -> Transcribe:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def clips(speech: list[dict[str, Any]]) -> list[tuple[np.ndarray, str]]:
    """Ten clips of 3 to 14 s, each with its text."""
    rows = [row for row in speech if 3 < row["duration"] < 14][::12][:10]
    return [(soundfile.read(row["audio"], dtype="float32")[0], row["text"]) for row in rows]


def pause(seconds: float) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)) * FLOOR).astype(np.float32)


def heard(transform: Transcribe, *waveforms: np.ndarray) -> list[Transcription]:
    return transform.transcribe(waveforms, [str(place) for place in range(len(waveforms))])


def errors(reference: str, text: str) -> jiwer.WordOutput:
    return jiwer.process_words(normalize(reference, "en"), normalize(text, "en"))


def check_segments(found: Transcription, num_samples: int) -> None:
    borders = [border for segment in found.segments for border in (segment.start, segment.end)]
    assert borders == sorted(borders) and all(0 <= border <= num_samples for border in borders)
    assert all(segment.start < segment.end and segment.text.strip() == segment.text for segment in found.segments)
    assert all(segment.text for segment in found.segments)


def test_words_are_heard_with_their_scores(ingested: Dataset, either: Transcribe) -> None:
    rows = window(ingested)
    output = apply(either, rows)
    assert output.rejects == [] and output.rows[KEY].to_pylist() == rows[KEY].to_pylist()
    found = output.rows.to_pylist()
    references = [normalize(text, "en") for text in rows["reference_text"].to_pylist()]
    assert jiwer.wer(references, [row["text_normalized"] for row in found]) < 0.15
    for row, samples, reference in zip(found, rows["num_samples"].to_pylist(), references, strict=True):
        borders = [border for segment in row["segments"] for border in (segment["start_sample"], segment["end_sample"])]
        assert borders and borders == sorted(borders) and borders[0] >= 0 and borders[-1] <= samples
        assert row["text"] == " ".join(segment["text"] for segment in row["segments"])
        assert all(-1 < segment["avg_logprob"] < 0 for segment in row["segments"])
        assert all(0 <= segment["no_speech_prob"] < 0.6 for segment in row["segments"])
        assert row["speech_covered"] > 0.9 and "uncovered_speech" not in row["flags"]
        assert row["wer_unit"] == "word"
        assert row["wer_vs_reference"] == pytest.approx(jiwer.wer(reference, row["text_normalized"]), abs=1e-4)
        assert row["chars_per_s"] == pytest.approx(len(row["text"]) * SAMPLE_RATE / samples, abs=1e-3)


def test_errors_are_counted_in_the_unit_of_the_reference(ingested: Dataset, fast: Transcribe) -> None:
    rows = window(ingested).slice(0, 5)
    references = [None, "…?!", "今天", "我 have ten", "यह"]
    at = rows.column_names.index("reference_text")
    found = apply(fast, rows.set_column(at, rows.schema.field(at), [references])).rows
    assert found["wer_unit"].to_pylist() == [None, None, "character", "mixed", "word"]
    rates = found["wer_vs_reference"].to_pylist()
    assert rates[:2] == [None, None] and all(rate > 0.5 for rate in rates[2:])


def test_both_backends_hear_nearly_the_same(ingested: Dataset) -> None:
    rows = window(ingested)
    texts = [apply(transcriber(backend=backend), rows).rows["text_normalized"].to_pylist() for backend in BACKENDS]
    assert jiwer.wer(*texts) < 0.06


def test_neighbours_and_batch_size_change_nothing(ingested: Dataset, fast: Transcribe) -> None:
    rows = window(ingested)
    together = apply(fast, rows).rows
    alone = [apply(fast, rows.slice(number, 1)).rows for number in range(4)]
    assert [part.to_pylist()[0] for part in alone] == together.slice(0, 4).to_pylist()


@pytest.mark.parametrize(
    ("backend", "seconds"), [("fast", 0.3), ("fast", 1.0), ("fast", 3.0), ("fast", 10.0), ("plain", 1.0)]
)
def test_the_sentence_after_a_pause_is_transcribed(
    clips: list[tuple[np.ndarray, str]], backend: str, seconds: float, request: pytest.FixtureRequest
) -> None:
    transform = request.getfixturevalue(backend)
    pairs = list(zip(clips[:6:2], clips[1:6:2], strict=True))
    joined = [np.concatenate([one, pause(seconds), two]) for (one, _), (two, _) in pairs]
    alone = [found.text for found in heard(transform, *(waveform for pair in pairs for waveform, _ in pair))]
    for found, waveform, ((one, first), (_, second)), texts in zip(
        heard(transform, *joined), joined, pairs, pairwise_texts(alone), strict=True
    ):
        check_segments(found, len(waveform))
        reference = f"{first} {second}"
        by_itself = errors(reference, " ".join(texts))
        assert errors(reference, found.text).deletions <= by_itself.deletions + 1
        assert found.speech_covered is not None and found.speech_covered > 0.95
        assert any(segment.start >= len(one) - SAMPLE_RATE // 2 for segment in found.segments)


def pairwise_texts(texts: list[str]) -> list[tuple[str, str]]:
    return list(zip(texts[::2], texts[1::2], strict=True))


@pytest.mark.parametrize("before", [1.5, 12.0, 25.0, 31.0])
def test_silence_before_the_speech_costs_no_word(
    fast: Transcribe, clips: list[tuple[np.ndarray, str]], before: float
) -> None:
    (waveform, reference), padded = clips[0], np.concatenate([pause(before), clips[0][0]])
    (alone,), (found,) = heard(fast, waveform), heard(fast, padded)
    check_segments(found, len(padded))
    assert errors(reference, found.text).deletions <= errors(reference, alone.text).deletions + 2
    assert found.speech_covered is not None and found.speech_covered > 0.9


@pytest.mark.parametrize("seconds", [29.9, 30.0, 30.1])
def test_the_border_of_a_window_costs_no_word(
    fast: Transcribe, clips: list[tuple[np.ndarray, str]], seconds: float
) -> None:
    waveform = np.concatenate([part for waveform, _ in clips for part in (waveform, pause(0.5))])
    (found,) = heard(fast, waveform[: int(seconds * SAMPLE_RATE)])
    check_segments(found, int(seconds * SAMPLE_RATE))
    assert found.speech_covered is not None and found.speech_covered > 0.95


def test_a_recording_of_minutes_loses_and_doubles_nothing(
    either: Transcribe, clips: list[tuple[np.ndarray, str]]
) -> None:
    waveform = np.concatenate([part for waveform, _ in clips for part in (waveform, pause(0.7))])
    reference = " ".join(text for _, text in clips)
    alone = " ".join(found.text for found in heard(either, *(waveform for waveform, _ in clips)))
    (found,) = heard(either, waveform)
    check_segments(found, len(waveform))
    assert len(waveform) > 2 * WINDOW_SAMPLES
    assert errors(reference, found.text).wer <= errors(reference, alone).wer + 0.03
    assert found.speech_covered is not None and found.speech_covered > 0.95


def test_fallback_goes_to_those_alone_that_fail(clips: list[tuple[np.ndarray, str]], fast: Transcribe) -> None:
    recognizer, calls = fast.transcribe._recognizer, []

    class Failing:
        """The real model, its first result for the second window made a repetition."""

        encode = recognizer.encode

        def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
            calls.append((len(encoded), temperature))
            found = recognizer.decode(encoded, temperature, seed)
            if temperature == 0 and len(encoded) == 3:
                num_samples = encoded[1][1]
                found[1] = decoded(Phrase(0, num_samples, "the " * 100), resume=num_samples)
            return found

    transcribe = LongForm(Failing(), DecodingRules())  # type: ignore[arg-type]
    found = transcribe([waveform for waveform, _ in clips[:3]], ["0", "1", "2"])
    assert calls[:2] == [(3, 0.0), (1, 0.2)]
    assert [fast._flags(each) for each in found] == [[], ["fallback"], []]
    assert found[1].text.count("the the") == 0


@pytest.mark.parametrize("lost", ["the second sentence", "the first sentence"])
def test_speech_without_text_is_decoded_again(fast: Transcribe, clips: list[tuple[np.ndarray, str]], lost: str) -> None:
    (one, first), (two, second) = clips[:2]
    waveform, border = np.concatenate([one, pause(2), two]), len(one) + SAMPLE_RATE
    recognizer, calls = fast.transcribe._recognizer, []

    class Losing:
        """The real model, one sentence of its first result lost."""

        encode = recognizer.encode

        def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
            calls.append(encoded[0][1])
            found = recognizer.decode(encoded, temperature, seed)
            if len(calls) == 1:
                kept = (
                    Phrase(0, len(one), first)
                    if lost == "the second sentence"
                    else Phrase(border, len(waveform), second)
                )
                found[0] = decoded(kept, resume=encoded[0][1])
            return found

    (found,) = LongForm(Losing(), DecodingRules())([waveform], ["0"])  # type: ignore[arg-type]
    check_segments(found, len(waveform))
    assert len(calls) == 2 and calls[1] < len(waveform) - SAMPLE_RATE
    assert errors(f"{first} {second}", found.text).deletions <= 3
    assert "uncovered_speech" not in fast._flags(found)


@pytest.mark.parametrize("lost", [True, False])
def test_segments_over_a_pause_give_way_to_parts_with_more_text(
    fast: Transcribe, clips: list[tuple[np.ndarray, str]], lost: bool
) -> None:
    """Two segments, each over two sentences with a long pause between them, with the text of one or of both."""
    four = clips[2:6]
    waveform = np.concatenate([part for waveform, _ in four for part in (waveform, pause(1.5))])[: WINDOW_SAMPLES - 1]
    middle = len(four[0][0]) + len(four[1][0]) + 2 * SAMPLE_RATE
    said = [four[place][1] if lost else f"{four[place][1]} {four[place + 1][1]}" for place in (0, 2)]
    recognizer, calls = fast.transcribe._recognizer, []

    class Spanning:
        """The real model, its first result made of two segments."""

        encode = recognizer.encode

        def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
            calls.append(len(encoded))
            if len(calls) > 1:
                return recognizer.decode(encoded, temperature, seed)
            num_samples = encoded[0][1]
            phrases = [Phrase(0, middle, said[0]), Phrase(middle, num_samples, said[1])]
            return [decoded(*phrases, resume=num_samples)]

    (found,) = LongForm(Spanning(), DecodingRules())([waveform], ["0"])  # type: ignore[arg-type]
    check_segments(found, len(waveform))
    if lost:
        reference = " ".join(text for _, text in four)
        assert len(found.segments) >= 4
        assert errors(reference, found.text).insertions <= 3
        assert errors(f"{four[0][1]} {four[1][1]}", found.text.split(found.segments[-1].text)[0]).deletions <= 3
    else:
        assert [segment.text for segment in found.segments] == said


def test_speech_that_stays_without_text_is_flagged(fast: Transcribe, clips: list[tuple[np.ndarray, str]]) -> None:
    one, two = clips[0][0], clips[1][0]

    class Deaf:
        """A model that transcribes the first sentence and nothing else."""

        def encode(self, windows: list[np.ndarray]) -> list[Encoded]:
            return [(window, len(window)) for window in windows]

        def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
            said = [Phrase(0, len(one), "The first.")]
            return [decoded(*(said if size > len(one) + len(two) else []), resume=size) for _, size in encoded]

    waveform = np.concatenate([one, pause(2), two])
    (found,) = LongForm(Deaf(), DecodingRules())([waveform], ["0"])  # type: ignore[arg-type]
    assert found.text == "The first." and "uncovered_speech" in fast._flags(found)
    assert found.speech_covered == pytest.approx(len(one) / (len(one) + len(two)), abs=0.15)


@pytest.mark.parametrize(
    ("first", "second"),
    [("3080-5032-0001", "2989-138028-0000"), ("533-1066-0009", "4088-158077-0000")],
)
def test_a_much_quieter_second_speaker_is_transcribed(
    fast: Transcribe, speech: list[dict[str, Any]], first: str, second: str
) -> None:
    """Whisper ends the first speaker's segment with the second one's last word, and leaves out what that one says."""
    rows = {row["audio"].stem: row for row in speech}
    if not {first, second} <= rows.keys():
        pytest.skip("needs the recorded speech")
    loud, quiet = (soundfile.read(rows[name]["audio"], dtype="float32")[0] for name in (first, second))
    quiet *= np.float32(0.1 * np.sqrt(np.mean(loud**2) / np.mean(quiet**2)))  # 20 dB below
    (found,) = heard(fast, np.concatenate([loud, pause(0.3), quiet]))
    said = errors(f"{rows[first]['text']} {rows[second]['text']}", found.text)
    assert said.wer < 0.1, said.wer
    assert "uncovered_speech" not in fast._flags(found)


def test_a_segment_that_stays_without_most_of_its_text_is_flagged(
    fast: Transcribe, clips: list[tuple[np.ndarray, str]]
) -> None:
    one, two = clips[0], clips[1]

    class Late:
        """A model that ends the first sentence with the second."""

        def __init__(self, text: str) -> None:
            self._text = text

        def encode(self, windows: list[np.ndarray]) -> list[Encoded]:
            return [(window, len(window)) for window in windows]

        def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
            return [decoded(Phrase(0, size, self._text), resume=size) for _, size in encoded]

    waveform = np.concatenate([one[0], pause(0.3), two[0]])
    for text, is_flagged in (("It is.", True), (f"{one[1]} {two[1]}", False)):
        (found,) = LongForm(Late(text), DecodingRules())([waveform], ["0"])  # type: ignore[arg-type]
        assert found.speech_covered == 1 and ("uncovered_speech" in fast._flags(found)) == is_flagged


def decoded(*phrases: Phrase, resume: int, avg_logprob: float = -0.1, no_speech_prob: float = 0.0) -> DecodedWindow:
    return DecodedWindow(list(phrases), resume, avg_logprob, no_speech_prob, 0.0, "en", None)


def test_loading_leaves_torch_its_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        transcriber()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_change_nothing(ingested: Dataset) -> None:
    rows, before, found = window(ingested), torch.get_num_threads(), []
    for backend in BACKENDS:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(apply(transcriber(backend=backend), rows).rows)
    torch.set_num_threads(before)
    assert found[0].equals(found[1]) and found[2].equals(found[3])


def test_sampling_depends_on_its_seed_alone(ingested: Dataset, either: Transcribe) -> None:
    waveform = decode_flac(window(ingested)["audio"][0]["bytes"].as_py())
    recognizer = either.transcribe._recognizer
    drawn = [recognizer.decode(recognizer.encode([waveform]), 1.0, seed)[0].text for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_where_every_attempt_repeats_itself_the_likeliest_is_taken() -> None:
    rules = DecodingRules()
    repeating, likelier = (
        decoded(Phrase(0, 9, "the " * 100), resume=9, avg_logprob=logprob) for logprob in (-0.9, -0.4)
    )
    passing = decoded(Phrase(0, 9, "yes"), resume=9, avg_logprob=-1.9)
    assert rules.fails(repeating) and not rules.fails(passing)
    assert rules.best([repeating, likelier, repeating]) is likelier
    assert rules.best([likelier, repeating, passing]) is passing


@pytest.mark.parametrize(
    ("language", "told", "other"),
    [("de", "en", True), ("en-US", "en", False), ("und", "en", False), ("", "en", False), ("nb-NO", "no", False)],
)
def test_another_language_than_whisper_was_told_is_flagged(language: str, told: str, other: bool) -> None:
    assert is_other_language(language, told) == other


def test_silence_is_flagged_and_not_invented_upon(fast: Transcribe) -> None:
    rules, said = DecodingRules(), Phrase(0, 9, "you")
    silent = decoded(said, resume=9, avg_logprob=-1.5, no_speech_prob=0.9)
    unsure = decoded(said, resume=9, avg_logprob=-1.5, no_speech_prob=0.1)
    assert rules.is_silent(silent) and not rules.is_silent(unsure)
    (found,) = heard(fast, pause(20))
    assert found.speech == [] and found.speech_covered is None
    assert fast._flags(found) in (["empty", "no_speech"], ["empty", "low_logprob", "no_speech"])


def test_embedded_weights_are_the_same_model_in_both_libraries(speech: list[dict]) -> None:
    import ctranslate2
    import whisper
    from faster_whisper import WhisperModel

    from echo_targets.transforms.models.checkpoints.embedded import WHISPER_TINY_EN

    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(waveform))[None]
    model = WhisperModel(str(WHISPER_TINY_EN.locate().parent), device="cpu", compute_type="float32")
    theirs = np.array(model.model.encode(ctranslate2.StorageView.from_array(mel.numpy())))
    with torch.inference_mode():
        ours = load_whisper(EMBEDDED).encoder(mel).numpy()
    assert np.abs(theirs - ours).max() < 1e-3


def test_compute_types_are_part_of_the_version_and_follow_from_the_device_alone() -> None:
    def meaning(device: str, **parameters: object) -> tuple[str, str]:
        found = Transcribe(TranscribeParameters.model_validate(parameters), device).fingerprint_parameters()
        return found["encoder_dtype"], found["decoder_dtype"]

    assert meaning("cpu") == ("float32", "int8")
    assert meaning("cpu", backend="openai-whisper") == ("float32", "float32")
    assert meaning("cuda:1") == meaning("cuda") == ("float16", "float16")
    assert meaning("cuda", encoder_dtype="bfloat16", decoder_dtype="int8") == ("bfloat16", "int8")
    with pytest.raises(ValueError, match="cannot decode in int8: set decoder_dtype to float32 or float16"):
        meaning("cpu", backend="openai-whisper", decoder_dtype="int8")


def test_a_machine_that_cannot_compute_in_a_type_says_so() -> None:
    with pytest.raises(ModelError, match=r"does not support float16 on this machine's cpu, only .*float32.*int8"):
        transcriber(decoder_dtype="float16")


def test_other_compute_types_hear_the_same(fast: Transcribe, clips: list[tuple[np.ndarray, str]]) -> None:
    (waveform, text), *_ = clips
    for parameters in ({"encoder_dtype": "bfloat16"}, {"decoder_dtype": "float32"}):
        (found,) = heard(transcriber(**parameters), waveform)
        assert errors(text, found.text).wer <= errors(text, heard(fast, waveform)[0].text).wer + 0.1
