"""Alignment with CTC checkpoints of transformers: its own emissions, letters of its own vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import TRANSCRIPTS
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import joined
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.ctc import HALF_BLANK
from echo_targets.transforms.models.aligners.letters import LetterAligner
from echo_targets.transforms.models.aligners.wav2vec2 import SslCtc
from echo_targets.transforms.stages.align import Align, AlignParameters
from tests.transforms.rows import apply, window
from tests.transforms.ssl_checkpoints import KINDS, make_ssl

VOCABULARY = {
    token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"])
}


def make_ctc(
    folder: Path, kind: str = "wav2vec2", norm: str = "layer", vocabulary: Mapping[str, int] = VOCABULARY
) -> str:
    model = make_ssl(folder, kind, norm, head=True, vocab_size=len(vocabulary), pad_token_id=0)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return model


def make_aligner(folder: Path, letters: str) -> LetterAligner:
    """An aligner with these letters, and no border between words."""
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", *letters])}
    aligner = LetterAligner(SslCtc(make_ctc(folder, vocabulary=vocabulary), "cpu"))
    aligner.setup()
    return aligner


def hear(aligner: LetterAligner, said: dict[int, str], frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the recognizer hear these letters in these frames, and blanks in all others."""
    vocabulary = aligner._vocabulary
    letters = {**vocabulary.letters, "<pad>": vocabulary.blank, "|": vocabulary.border}
    heard = np.full((frames, len(letters) + 4), -20.0, np.float32)
    for frame in range(frames):
        heard[frame, letters[said.get(frame, "<pad>")]] = -0.01
    monkeypatch.setattr("echo_targets.transforms.models.aligners.wav2vec2.encode_utterance", lambda *_: heard.copy())


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


def test_words_share_the_blanks_between_their_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = LetterAligner(SslCtc(make_ctc(tmp_path), "cpu"))
    aligner.setup()
    hear(aligner, dict(zip(range(10, 16), "ONE|TW", strict=True)) | {20: "O"}, 50, monkeypatch)
    one, two = aligner.align(np.zeros(16_000, np.float32), "one two").words
    assert (one.start_sample, one.end_sample) == (10 * 320 - HALF_BLANK, 13 * 320 + 160)
    assert (two.start_sample, two.end_sample) == (13 * 320 + 160, 21 * 320 + HALF_BLANK)


def test_silence_between_letters_parts_their_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = LetterAligner(SslCtc(make_ctc(tmp_path), "cpu"))
    aligner.setup()
    hear(aligner, {10: "O", 11: "N", 12: "E", 24: "T", 25: "W", 30: "O"}, 50, monkeypatch)
    waveform = np.random.default_rng(0).normal(0, 1e-4, 16_000).astype(np.float32)
    borders = [2_900, 4_500, 7_000, 10_500]
    for begin, end in (borders[:2], borders[2:]):
        waveform[begin:end] *= 1_000
    words = aligner.align(waveform, "one two").words
    found = [border for word in words for border in (word.start_sample, word.end_sample)]
    assert np.abs(np.subtract(found, borders)).max() <= 160


@pytest.mark.parametrize(
    ("text", "said", "words"),
    [
        ("今天，好。", {5: "今", 9: "天", 10: "天", 30: "好"}, [("今", 5, 6), ("天", 9, 11), ("好", 30, 31)]),
        (
            "我用iPad打。",
            {5: "我", 8: "用", 12: "i", 14: "p", 16: "a", 18: "d", 25: "打"},
            [("我", 5, 6), ("用", 8, 9), ("iPad", 12, 19), ("打", 25, 26)],
        ),
        ("น้ำมา", {3: "น", 4: "\u0e49", 6: "\u0e33", 10: "ม", 12: "า"}, [("น้ำ", 3, 7), ("ม", 10, 11), ("า", 12, 13)]),
        ("ﾊﾞｽが", {3: "バ", 5: "ス", 7: "が"}, [("ﾊﾞ", 3, 4), ("ｽ", 5, 6), ("が", 7, 8)]),
        ("भाषा।", {3: "भ", 4: "\u093e", 6: "ष", 7: "\u093e"}, [("भाषा", 3, 8)]),
    ],
)
def test_characters_are_where_they_were_heard(
    text: str,
    said: dict[int, str],
    words: list[tuple[str, int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aligner = make_aligner(tmp_path, "".join(dict.fromkeys(said.values())))
    hear(aligner, said, 50, monkeypatch)
    alignment = aligner.align(np.zeros(16_000, np.float32), text)
    assert alignment.status == "ok"
    assert [word.symbol for word in alignment.words] == [symbol for symbol, _, _ in words]
    for word, (_, first, last) in zip(alignment.words, words, strict=True):
        assert word.start_sample <= first * 320 and last * 320 <= word.end_sample


def test_numbers_and_strange_words_between_characters_are_interpolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = make_aligner(tmp_path, "年好")
    hear(aligner, {20: "年", 30: "好"}, 50, monkeypatch)
    alignment = aligner.align(np.zeros(16_000, np.float32), "2024年好OK")
    assert [word.symbol for word in alignment.words if word.interpolated] == ["2024", "OK"]
    assert (alignment.status, alignment.coverage) == ("partial", 0.5)


def test_a_letter_is_known_in_whatever_form_its_vocabulary_has_it(tmp_path: Path) -> None:
    composed = make_aligner(tmp_path / "composed", "é한ำن")
    parts = make_aligner(tmp_path / "parts", "e\u0301\u1112\u1161\u11ab\u0e4d\u0e32")
    for text in ("é", "e\u0301"):
        assert composed.tokens(text) == (2,) and parts.tokens(text) == (2, 3)
    assert composed.tokens("한") == (3,) and parts.tokens("한") == (4, 5, 6)
    assert composed.tokens("\u0e33") == (4,) and parts.tokens("\u0e33") == (7, 8)
    assert composed.tokens("نْ") == (5,), "a vowel sign that the vocabulary lacks"


def test_the_stage_aligns_with_it(ingested: Dataset, tmp_path: Path) -> None:
    model = make_ctc(tmp_path / "ctc", norm="group")
    transform = Align(AlignParameters(model=model), "cpu")
    assert transform.weight_digests() == LetterAligner(SslCtc(model, "cpu")).weight_digests()
    assert transform.fingerprint_parameters() == Align(AlignParameters()).fingerprint_parameters()
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
    assert aligner.tokens("1998") is None and aligner.tokens("東京") is None and aligner.tokens("'") is not None
    assert aligner.tokens("naïve") == aligner.tokens("nai\u0308ve") == aligner.tokens("naive")
    assert aligner.tokens("well-known") == aligner.tokens("wellknown")
    with pytest.raises(ModelError, match="no Whisper model"):
        Align(AlignParameters(method="attention", model=model)).setup()
