"""Units of real speech: what the codebook says, whatever the neighbours, the order or the padding."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from ctranslate2.converters import TransformersConverter

from echo_targets.schemas import KEY, SAMPLE_RATE, UNITS
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.encoders.whisper import WhisperFeatures
from echo_targets.transforms.models.whisper.encoder import layer_features, num_frames
from echo_targets.transforms.models.whisper.weights import EMBEDDED, load_whisper
from echo_targets.transforms.stages.tokenize import Tokenize, TokenizeParameters
from echo_targets.transforms.units.codebook import Codebook, collapse
from echo_targets.transforms.units.language import UnitLanguage
from tests.transforms.rows import apply, window
from tests.transforms.whisper_checkpoints import make_whisper, write_tokenizer


@pytest.fixture(scope="module")
def tokenize() -> Tokenize:
    language = "embedded:unit-language-k100.json"
    transform = Tokenize(TokenizeParameters(unit_language=language))
    transform.setup()
    return transform


def test_units_are_the_nearest_centroids(ingested: Dataset, tokenize: Tokenize) -> None:
    rows = window(ingested).slice(0, 2)
    book = Codebook.load(asset("embedded:codebook-tiny.en-l3-k100.safetensors"))
    model = load_whisper(EMBEDDED)
    for source, row in zip(rows.to_pylist(), apply(tokenize, rows).rows.to_pylist(), strict=True):
        (features,) = layer_features(model, [decode_flac(source["audio"]["bytes"])], book.layer)
        standard = (features - book.mean) / book.std
        nearest = np.linalg.norm(standard[:, None] - book.centroids[None], axis=2).argmin(axis=1)
        units, durations = collapse(nearest)
        assert row["units"] == [units.tolist()] and row["durations"] == durations.tolist()
        assert row["num_frames"] == num_frames(source["num_samples"])
        assert (row["codebook_id"], row["codebook_size"], row["num_codebooks"]) == (book.id, 100, 1)
        assert (row["layer"], row["sampling_rate"], row["hop_samples"]) == (3, SAMPLE_RATE, 320)


def test_neighbours_order_and_batch_size_change_nothing(ingested: Dataset, tokenize: Tokenize) -> None:
    rows = window(ingested)
    together = {row[KEY]: row for row in apply(tokenize, rows).rows.to_pylist()}
    backwards = apply(tokenize, rows.take(list(reversed(range(len(rows)))))).rows.to_pylist()
    alone = [apply(tokenize, rows.slice(number, 1)).rows.to_pylist()[0] for number in range(len(rows))]
    assert {row[KEY]: row for row in backwards} == together
    assert {row[KEY]: row for row in alone} == together


def test_utterances_of_one_second_in_one_batch_do_not_touch_each_other(speech: list[dict]) -> None:
    import soundfile

    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    same_second = [waveform[: 5 * SAMPLE_RATE - cut] for cut in (0, 100, 3000, 9000, 15000)]
    features = WhisperFeatures(EMBEDDED, 3, "cpu")
    together = features(same_second)
    for alone, batched in zip(same_second, together, strict=True):
        assert np.array_equal(features([alone])[0], batched)
        assert len(batched) == num_frames(len(alone))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_units_do_not_depend_on_threads(ingested: Dataset, dtype: str) -> None:
    import torch

    tokenize = Tokenize(TokenizeParameters(dtype=dtype))
    tokenize.setup()
    rows = window(ingested).slice(0, 4)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(apply(tokenize, rows).rows.to_pylist())
    torch.set_num_threads(before)
    assert found[0] == found[1]


def test_bfloat16_gives_few_frames_to_other_centroids(ingested: Dataset, tokenize: Tokenize) -> None:
    half = Tokenize(TokenizeParameters(dtype="bfloat16"))
    half.setup()
    assert half.fingerprint_parameters() != tokenize.fingerprint_parameters()
    rows = window(ingested)
    exact, near = (
        np.concatenate([np.repeat(row["units"][0], row["durations"]) for row in apply(stage, rows).rows.to_pylist()])
        for stage in (tokenize, half)
    )
    assert 0.97 < np.mean(exact == near) < 1


def test_more_than_thirty_seconds(long_utterance: dict) -> None:
    import soundfile

    waveform, _ = soundfile.read(long_utterance["audio"], dtype="float32")
    features = WhisperFeatures(EMBEDDED, 3, "cpu")
    (whole,) = features([waveform])
    assert len(whole) == num_frames(len(waveform))
    assert np.array_equal(whole[:1500], features([waveform[: 30 * SAMPLE_RATE]])[0])


def test_words_spell_the_units(ingested: Dataset, tokenize: Tokenize) -> None:
    language = UnitLanguage.load(asset("embedded:unit-language-k100.json"))
    for row in apply(tokenize, window(ingested).slice(0, 3)).rows.to_pylist():
        assert [language.decode(row["unit_words"])] == row["units"]
        assert row["unit_language_id"] == language.id
        assert len(row["unit_words"]) < len(row["units"][0])


def test_the_fingerprint_follows_the_files_and_not_their_place(tmp_path: Path) -> None:
    copy = tmp_path / "codebook.safetensors"
    copy.write_bytes(asset(TokenizeParameters().codebook).read_bytes())
    here, there = Tokenize(TokenizeParameters()), Tokenize(TokenizeParameters(codebook=str(copy)))
    assert (here.fingerprint_parameters(), here.weight_digests()) == (
        there.fingerprint_parameters(),
        there.weight_digests(),
    )
    assert here.writes is UNITS


def test_a_codebook_of_other_weights_is_refused_by_both_their_names(tmp_path: Path) -> None:
    """Units of another Whisper of the same shape look like units: tiny's and tiny.en's are equal in 7 % of frames."""
    other = make_whisper(tmp_path / "tiny", d_model=384, encoder_layers=4, encoder_attention_heads=6)
    write_tokenizer(Path(other), "gpt2")
    ct2 = tmp_path / "faster-whisper-tiny"
    TransformersConverter(other).convert(str(ct2))
    for model, name in ((other, open_encoder(other).name()), (str(ct2), "whisper-faster-whisper-tiny")):
        transform = Tokenize(TokenizeParameters(model=model))
        for use in (transform.weight_digests, transform.setup):
            with pytest.raises(
                ModelError, match=rf"fitted on whisper-tiny\.en with weights 1a5afae0, but `model` is {name} "
            ):
                use()


def test_a_file_and_the_name_that_it_is_downloaded_by_have_one_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import whisper

    (tmp_path / "mine.pt").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setitem(whisper._MODELS, "tiny.en", f"https://host/main/whisper/models/{digest}/tiny.en.pt")
    assert open_encoder("tiny.en").weight_digest() == open_encoder(str(tmp_path / "mine.pt")).weight_digest() == digest
