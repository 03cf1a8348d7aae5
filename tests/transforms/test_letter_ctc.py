"""Alignment with CTC checkpoints of transformers: its own emissions, letters of its own vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from schemas import TRANSCRIPTS
from schemas.layout import Dataset
from tests.transforms.rows import apply, window
from tests.transforms.ssl_checkpoints import KINDS, make_ssl
from transforms.align import Align, AlignParameters
from transforms.base import joined
from transforms.models.embedded import ModelError
from transforms.models.hama_ctc import HALF_BLANK
from transforms.models.letter_ctc import LetterAligner
from transforms.models.ssl_ctc import SslCtc

VOCABULARY = {
    token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"])
}


def make_ctc(folder: Path, kind: str = "wav2vec2", norm: str = "layer") -> str:
    model = make_ssl(folder, kind, norm, head=True, vocab_size=len(VOCABULARY), pad_token_id=0)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_emissions_are_those_of_transformers(tmp_path: Path, speech: list[dict], kind: str) -> None:
    import torch
    from transformers import AutoModelForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    model = make_ctc(tmp_path, kind)
    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    aligner = LetterAligner(SslCtc(model, "cpu"))
    aligner.setup()
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor.from_pretrained(model), tokenizer)
    inputs = processor(waveform, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        expected = AutoModelForCTC.from_pretrained(model).eval()(inputs).logits[0].log_softmax(-1).numpy()
    found = aligner.emissions(waveform)[: len(expected)]
    np.testing.assert_allclose(np.delete(found, 0, 1), np.delete(expected, 0, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[:, 0], np.logaddexp(expected[:, 0], expected[:, 4]), rtol=1e-4, atol=1e-4)
    assert aligner.tokens("Don't") == tuple(tokenizer("DON'T").input_ids)


def letters_at(monkeypatch: pytest.MonkeyPatch, said: dict[int, str]) -> None:
    """Make the recogniser hear these letters, each in one frame of 50."""
    heard = np.full((50, len(VOCABULARY)), -20.0, np.float32)
    for frame in range(50):
        heard[frame, VOCABULARY[said.get(frame, "<pad>")]] = -0.01
    monkeypatch.setattr("transforms.models.ssl_ctc.hear", lambda *_: heard)


def test_words_share_the_blanks_between_their_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = LetterAligner(SslCtc(make_ctc(tmp_path), "cpu"))
    aligner.setup()
    letters_at(monkeypatch, dict(zip(range(10, 16), "ONE|TW", strict=True)) | {20: "O"})
    one, two = aligner.align(np.zeros(16_000, np.float32), "one two").words
    assert (one.start_sample, one.end_sample) == (10 * 320 - HALF_BLANK, 13 * 320 + 160)
    assert (two.start_sample, two.end_sample) == (13 * 320 + 160, 21 * 320 + HALF_BLANK)


def test_silence_between_letters_parts_their_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = LetterAligner(SslCtc(make_ctc(tmp_path), "cpu"))
    aligner.setup()
    letters_at(monkeypatch, {10: "O", 11: "N", 12: "E", 24: "T", 25: "W", 30: "O"})
    waveform = np.random.default_rng(0).normal(0, 1e-4, 16_000).astype(np.float32)
    borders = [2_900, 4_500, 7_000, 10_500]
    for begin, end in (borders[:2], borders[2:]):
        waveform[begin:end] *= 1_000
    words = aligner.align(waveform, "one two").words
    found = [border for word in words for border in (word.start_sample, word.end_sample)]
    assert np.abs(np.subtract(found, borders)).max() <= 160


def test_the_stage_aligns_with_it(ingested: Dataset, tmp_path: Path) -> None:
    model = make_ctc(tmp_path / "ctc", norm="group")
    transform = Align(AlignParameters(model=model), "cpu")
    assert transform.weights() == LetterAligner(SslCtc(model, "cpu")).weights()
    assert transform.meaning() == Align(AlignParameters()).meaning()
    transform.setup()
    rows = joined(window(ingested).slice(0, 3), TRANSCRIPTS, None)
    output = apply(transform, rows)
    assert output.rejects == []
    for source, row in zip(rows.to_pylist(), output.rows.to_pylist(), strict=True):
        assert [item["symbol"] for item in row["items"]] == source["reference_text"].split()
        assert row["status"] == "ok"


def test_what_it_can_not_say_and_what_is_refused(tmp_path: Path) -> None:
    model = make_ctc(tmp_path)
    aligner = LetterAligner(SslCtc(model, "cpu"))
    aligner.setup()
    assert aligner.tokens("1998") is None and aligner.tokens("naïve") is None
    assert aligner.tokens("well-known") == aligner.tokens("wellknown")
    with pytest.raises(ModelError, match="no Whisper model"):
        Align(AlignParameters(method="attention", model=model)).setup()
    (tmp_path / "vocab.json").write_text(json.dumps({"eng": VOCABULARY}))
    with pytest.raises(ModelError, match="keep the one you align"):
        LetterAligner(SslCtc(model, "cpu")).setup()
