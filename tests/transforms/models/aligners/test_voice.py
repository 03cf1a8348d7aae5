"""Alignment by the voice's own durations: what it spoke agrees with CTC, and nothing else is aligned."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hibari", reason="the [demo] extra is not installed")

from echo_targets.transforms.models.aligners.hama import CtcAligner
from echo_targets.transforms.models.aligners.voice import VoiceAligner
from echo_targets.transforms.models.voices.delivery import Delivery, deliver
from echo_targets.transforms.models.voices.hibari import HibariVoice
from echo_targets.transforms.stages.align import Align, AlignParameters

TEXTS = (
    "The captain turned slowly, and asked whether anybody had seen the missing letters. Nobody had.",
    "he should make inquiries as to symptoms and time at which food or medicine was last taken",
    "No.",
)
MS = 16


@pytest.fixture(scope="module")
def voice() -> HibariVoice:
    loaded = HibariVoice()
    loaded.setup()
    return loaded


@pytest.fixture(scope="module")
def aligner() -> VoiceAligner:
    loaded = VoiceAligner()
    loaded.setup()
    return loaded


def test_it_agrees_with_ctc(voice: HibariVoice, aligner: VoiceAligner) -> None:
    ctc = CtcAligner()
    ctc.setup()
    spoken = [deliver(voice, text) for text in TEXTS]
    for text, ours, theirs in zip(TEXTS, aligner(spoken, [*TEXTS]), ctc(spoken, [*TEXTS]), strict=True):
        assert ours.status == "ok" and [word.symbol for word in ours.words] == [word.symbol for word in theirs.words]
        assert all(text[word.char_start : word.char_end] == word.symbol for word in ours.words)
        starts = [one.start_sample - other.start_sample for one, other in zip(ours.words, theirs.words, strict=True)]
        assert np.median(np.abs(starts)) <= 40 * MS and max(map(abs, starts)) < 150 * MS


def test_speech_at_another_pace_or_of_another_text_fails(voice: HibariVoice, aligner: VoiceAligner) -> None:
    faster = aligner.align(deliver(voice, TEXTS[0], Delivery(speed=1.2)), TEXTS[0])
    other = aligner.align(deliver(voice, TEXTS[0]), TEXTS[1])
    for found in (faster, other):
        assert found.status == "failed" and "not the embedded voice at its own pace" in found.reason


def test_a_text_whose_words_the_voice_does_not_tell_apart_fails(voice: HibariVoice, aligner: VoiceAligner) -> None:
    found = aligner.align(deliver(voice, "at seven thirty"), "at 7:30")
    assert found.status == "failed" and "word by word; set align.method to ctc" in found.reason


def test_the_stage_takes_it_by_name() -> None:
    stages = [Align(AlignParameters(method=method)) for method in ("voice", "ctc")]
    one, other = (stage.weight_digests() for stage in stages)
    assert isinstance(stages[0]._open(), VoiceAligner) and one != other
