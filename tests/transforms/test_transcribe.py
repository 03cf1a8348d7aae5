"""Both backends on real speech: same columns, scores that hold, long audio, fallback for failures alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch

from schemas import KEY, SAMPLE_RATE
from schemas.layout import Dataset
from tests.transforms.rows import apply, run_stages, window
from transforms.models.recognisers import BACKENDS, Heard
from transforms.models.whisper_encoder import WINDOW_SAMPLES
from transforms.models.whisper_weights import EMBEDDED, load_whisper
from transforms.text import normalize
from transforms.transcribe import Transcribe, TranscribeParameters, cut_windows


def transcriber(**parameters: object) -> Transcribe:
    transform = Transcribe(TranscribeParameters.model_validate(parameters))
    transform.setup()
    return transform


@pytest.fixture(scope="module")
def fast() -> Transcribe:
    return transcriber()


@pytest.mark.parametrize("backend", BACKENDS)
def test_words_are_heard_with_their_scores(ingested: Dataset, backend: str) -> None:
    rows = window(ingested)
    output = apply(transcriber(backend=backend), rows)
    assert output.rejects == [] and output.rows[KEY].to_pylist() == rows[KEY].to_pylist()
    found = output.rows.to_pylist()
    references = [normalize(text, "en") for text in rows["reference_text"].to_pylist()]
    assert jiwer.wer(references, [row["text_normalized"] for row in found]) < 0.15
    for row, samples, reference in zip(found, rows["num_samples"].to_pylist(), references, strict=True):
        (segment,) = row["segments"]
        assert (segment["start_sample"], segment["end_sample"]) == (0, samples)
        assert -1 < segment["avg_logprob"] < 0 and 0 <= segment["no_speech_prob"] < 0.6
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


def test_a_minute_of_speech_is_cut_where_it_is_quiet(long_utterance: dict, tmp_path: Path, fast: Transcribe) -> None:
    import json

    (tmp_path / "m.jsonl").write_text(json.dumps(long_utterance))
    source = {"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    (row,) = apply(fast, window(dataset)).rows.to_pylist()
    segments = row["segments"]
    assert len(segments) >= 3
    assert segments[0]["start_sample"] == 0
    assert all(one["end_sample"] == two["start_sample"] for one, two in pairwise(segments))
    assert all(segment["end_sample"] - segment["start_sample"] <= WINDOW_SAMPLES for segment in segments)
    assert row["wer_vs_reference"] < 0.2


def test_windows_are_the_waveform_and_are_cut_at_silence() -> None:
    loud = np.random.default_rng(0).normal(0, 0.1, 70 * SAMPLE_RATE).astype(np.float32)
    loud[25 * SAMPLE_RATE : 26 * SAMPLE_RATE] = 0
    windows = cut_windows(loud)
    assert np.array_equal(np.concatenate([samples for _, samples in windows]), loud)
    assert 25 * SAMPLE_RATE <= len(windows[0][1]) <= 26 * SAMPLE_RATE
    assert [start for start, _ in windows] == np.cumsum([0] + [len(samples) for _, samples in windows[:-1]]).tolist()
    assert cut_windows(loud[:WINDOW_SAMPLES])[0][1] is not None and len(cut_windows(loud[:WINDOW_SAMPLES])) == 1


def test_fallback_goes_to_those_alone_that_fail(ingested: Dataset, fast: Transcribe) -> None:
    rows = window(ingested).slice(0, 3)
    recognise, calls = fast._recognise, []

    class Failing:
        """The real model, its first result for the second window made a repetition."""

        def __call__(self, windows: list[np.ndarray], temperature: float = 0.0, seed: int = 0) -> list[Heard]:
            calls.append((len(windows), temperature))
            heard = recognise(windows, temperature, seed)
            if temperature == 0:
                heard[1] = Heard("the " * 100, -0.1, 0.0, 0.0, "en", None)
            return heard

    fast._recognise = Failing()  # type: ignore[assignment]
    try:
        found = apply(fast, rows).rows.to_pylist()
    finally:
        fast._recognise = recognise
    assert calls == [(3, 0.0), (1, 0.2)]
    assert [row["flags"] for row in found] == [[], ["fallback"], []]
    assert found[1]["text"].count("the the") == 0


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


def test_sampling_depends_on_its_seed_alone(ingested: Dataset, fast: Transcribe) -> None:
    from transforms.audio import decode_flac

    waveform = decode_flac(window(ingested)["audio"][0]["bytes"].as_py())
    drawn = [fast._recognise([waveform], 1.0, seed)[0].text for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_silence_is_flagged_and_not_invented_upon(fast: Transcribe) -> None:
    assert not fast._fails(Heard("you", -1.5, 0.9, 0.0, "en", None))
    assert fast._fails(Heard("you", -1.5, 0.1, 0.0, "en", None))
    assert "no_speech" in fast._flags(Heard("you", -1.5, 0.9, 0.0, "en", None))


def test_embedded_weights_are_the_same_model_in_both_libraries(speech: list[dict]) -> None:
    import ctranslate2
    import soundfile
    import torch
    import whisper
    from faster_whisper import WhisperModel

    from transforms.models.embedded import WHISPER_TINY_EN

    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(waveform))[None]
    model = WhisperModel(str(WHISPER_TINY_EN.locate().parent), device="cpu", compute_type="float32")
    theirs = np.array(model.model.encode(ctranslate2.StorageView.from_array(mel.numpy())))
    with torch.inference_mode():
        ours = load_whisper(EMBEDDED).encoder(mel).numpy()
    assert np.abs(theirs - ours).max() < 1e-3
