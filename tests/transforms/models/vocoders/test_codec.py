"""Codecs decode their own units: the library's own audio, from the tokenizer's units, through readers and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from echo_targets.jobs.inspector.sound import voiced
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.readers.registry import open_reader, reader_weights
from echo_targets.transforms.models.tokenizers.registry import open_tokenizer
from echo_targets.transforms.models.vocoders.base import frames_of
from echo_targets.transforms.models.vocoders.codec import CodecVocoder
from echo_targets.transforms.models.vocoders.registry import is_vocoder, open_vocoder, vocoder_digest
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.threads import in_threads
from echo_targets.transforms.units.codebook import collapse
from tests.transforms.codec_checkpoints import SIZES, make_codec

RATES = {"Encodec": (24_000, 320), "Dac": (44_100, 512), "Mimi": (24_000, 1920)}


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("codecs")
    return {name: Path(make_codec(folder / name, name)) for name in SIZES}


@pytest.fixture(scope="module")
def waveform(speech: list[dict[str, Any]]) -> np.ndarray:
    return soundfile.read(speech[0]["audio"], dtype="float32")[0][8_000:22_000]


def units_of(folder: Path, waveform: np.ndarray, num_codebooks: int | None = None) -> np.ndarray:
    """(codebooks, frames) of the tokenizer."""
    tokenizer = open_tokenizer(str(folder), EMBEDDED, num_codebooks=num_codebooks)
    tokenizer.setup("cpu")
    return tokenizer([waveform])[0].T


def by_transformers(folder: Path, name: str, units: np.ndarray) -> np.ndarray:
    """Audio of the library's own `decode`, resampled to 16 kHz."""
    import soxr
    import transformers

    model = getattr(transformers, f"{name}Model").from_pretrained(folder)
    codes = torch.from_numpy(units.astype(np.int64))[None]
    with torch.inference_mode():
        decoded = {
            "Encodec": lambda: model.decode(codes[None], [None])[0][0, 0],
            "Dac": lambda: model.decode(audio_codes=codes)[0][0],
            "Mimi": lambda: model.decode(codes)[0][0, 0],
        }[name]()
    return soxr.resample(decoded.numpy(), RATES[name][0], SAMPLE_RATE)


@pytest.mark.parametrize("codebooks", [None, 2])
@pytest.mark.parametrize("name", SIZES)
def test_audio_is_the_librarys(codecs: dict[str, Path], waveform: np.ndarray, name: str, codebooks: int | None) -> None:
    units = units_of(codecs[name], waveform, codebooks)
    speech = open_vocoder(codecs[name]).speak(units)
    assert speech.dtype == np.float32 and np.array_equal(speech, by_transformers(codecs[name], name, units))
    rate, hop = RATES[name]
    assert len(speech) == pytest.approx(units.shape[1] * hop * SAMPLE_RATE / rate, abs=hop)
    assert np.square(speech).mean() > 0


@pytest.mark.parametrize("name", SIZES)
def test_each_unit_is_heard(codecs: dict[str, Path], waveform: np.ndarray, name: str) -> None:
    """A change in any codebook changes the audio; other utterances do not."""
    vocoder, units = CodecVocoder(codecs[name]), units_of(codecs[name], waveform)[:, :5]
    before = vocoder.speak(units)
    for codebook in range(len(units)):
        other = units.copy()
        other[codebook] = (other[codebook] + 1) % vocoder.codebook_size
        assert not np.array_equal(vocoder.speak(other), before)
    assert np.array_equal(vocoder.speak(units), before)


@pytest.mark.parametrize("name", SIZES)
def test_short_utterances(codecs: dict[str, Path], name: str) -> None:
    vocoder = CodecVocoder(codecs[name])
    assert len(vocoder.speak([])) == 0 and len(vocoder.speak([[], []])) == 0
    for frames in (1, 2, 3):
        assert len(vocoder.speak([[1] * frames, [2] * frames])) > 0


@pytest.mark.parametrize("name", SIZES)
def test_another_codec_is_refused(codecs: dict[str, Path], tmp_path: Path, name: str) -> None:
    vocoder = CodecVocoder(codecs[name])
    for codebooks in (None, 1, 2):
        tokenizer = open_tokenizer(str(codecs[name]), EMBEDDED, num_codebooks=codebooks)
        vocoder.check_codebook(tokenizer.codebook_id, tokenizer.codebook_size)
    config = Path(make_codec(tmp_path / name, name), "config.json")
    config.write_text(config.read_text().replace('"transformers_version"', '"note": 1, "transformers_version"'))
    other = open_tokenizer(str(config.parent), EMBEDDED)
    for codebook_id in (other.codebook_id, "whisper-tiny.en-l3-k100-0a1b2c3d", other.codebook_id.upper()):
        with pytest.raises(ModelError, match=r"is the codec of .*, but the units are of .*: use that codec"):
            vocoder.check_codebook(codebook_id, other.codebook_size)


def test_units_that_it_does_not_have_are_refused(codecs: dict[str, Path]) -> None:
    vocoder = CodecVocoder(codecs["Dac"])
    for unit in (-1, 32):
        with pytest.raises(ValueError, match=r"not all in \[0, 32\)"):
            vocoder.speak([[1, 2], [3, unit]])
    with pytest.raises(ValueError, match="4 codebooks, but the codec has 3"):
        vocoder.speak([[1]] * 4)


def test_the_kind_is_chosen_from_the_files(codecs: dict[str, Path], tmp_path: Path) -> None:
    for folder in codecs.values():
        assert is_vocoder(folder) and isinstance(open_vocoder(folder), CodecVocoder)
    assert len({vocoder_digest(folder) for folder in codecs.values()}) == 3
    copy = Path(make_codec(tmp_path / "copy", "Mimi"))
    assert vocoder_digest(copy) == vocoder_digest(codecs["Mimi"])
    assert not is_vocoder(tmp_path)
    with pytest.raises(ModelError, match="is no vocoder"):
        open_vocoder(tmp_path)


def test_frames_are_the_runs_for_their_durations() -> None:
    segments = [[[1, 2], [5, 6]], [[3], [7]], [[], []]]
    assert frames_of(segments).tolist() == [[1, 2, 3], [5, 6, 7]]
    assert frames_of(segments, [[2, 1], [3], []]).tolist() == [[1, 1, 2, 3, 3, 3], [5, 5, 6, 7, 7, 7]]
    assert frames_of([]).size == 0
    with pytest.raises(ValueError, match="2 units have 1 durations"):
        frames_of(segments, [[2], [3], []])


def test_a_reader_decodes_a_codecs_units(codecs: dict[str, Path], waveform: np.ndarray) -> None:
    """What it hears is the audio of all segments' frames."""
    reader: Any = open_reader(codecs["Mimi"], EMBEDDED, "cpu")
    assert set(reader_weights(codecs["Mimi"], EMBEDDED)) == {"reader", "reader_whisper"}
    units = units_of(codecs["Mimi"], waveform)
    heard: list[np.ndarray] = []
    reader._written = lambda sound: heard.append(sound) or "yes"
    cuts = [collapse(part.T) for part in (units[:, :4], units[:, 4:])]
    replies, durations = [[runs.T.tolist() for runs, _ in cuts]], [[lasting.tolist() for _, lasting in cuts]]
    assert reader.read_replies(replies, durations) == ["yes"]
    (expected,) = in_threads(open_vocoder(codecs["Mimi"]).speak, [units], at_once=1)
    assert np.array_equal(heard[0], expected)
    with pytest.raises(ModelError, match="collapsed and have no durations"):
        reader.read_replies(replies)
    with pytest.raises(ModelError, match="use that codec"):
        reader.check_codebook("mimi-00000000-q5-k128", 128)


def test_the_page_plays_several_codebooks(codecs: dict[str, Path], waveform: np.ndarray) -> None:
    import base64

    from echo_targets.transforms.audio.waveforms import decode_flac

    vocoder, units = open_vocoder(codecs["Encodec"]), units_of(codecs["Encodec"], waveform)
    runs, durations = collapse(units.T)
    codebook = open_tokenizer(str(codecs["Encodec"]), EMBEDDED).codebook_id
    segment = {"units": runs.T.tolist(), "durations": durations.tolist()}
    flac = voiced(vocoder, {"codebook": codebook, "segments": [segment]})
    assert flac is not None
    np.testing.assert_allclose(decode_flac(base64.b64decode(flac)), vocoder.speak(units).clip(-1, 1), atol=1e-4)
    assert voiced(vocoder, {"version": 1, "segments": []}) is None
    with pytest.raises(ModelError, match="no durations"):
        voiced(vocoder, {"codebook": codebook, "segments": [segment | {"durations": None}]})
    with pytest.raises(ModelError, match="use that codec"):
        voiced(vocoder, {"codebook": "another", "segments": [segment]})
