"""Codecs against their library's own forward, whatever the neighbours, on real speech; and through the whole stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.tokenizers.base import TokenizerSpec, UnitTokenizer
from echo_targets.transforms.models.tokenizers.codec import Codec
from echo_targets.transforms.models.tokenizers.registry import open_tokenizer
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.stage import Echo
from echo_targets.transforms.stages.tokenize import Tokenize, TokenizeParameters
from echo_targets.transforms.threads import in_threads
from echo_targets.transforms.units.codebook import collapse, expand
from echo_targets.transforms.units.language import UnitLanguage
from tests.transforms.codec_checkpoints import SIZES, make_codec
from tests.transforms.rows import apply, run_stages, window

SHAPES = {"Encodec": (24_000, 320, 8), "Dac": (44_100, 512, 3), "Mimi": (24_000, 1920, 5)}
"""Rate, hop and codebooks of the tiny codecs: 75, 86.13 and 12.5 frames a second."""


@pytest.fixture(scope="session")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("codecs")
    return {name: make_codec(folder / name, name) for name in SIZES}


@pytest.fixture(scope="module")
def waveforms(speech: list[dict]) -> list[np.ndarray]:
    """Real speech of some lengths, no two alike, and less than a frame of it."""
    (whole, _), (other, _) = (soundfile.read(row["audio"], dtype="float32") for row in speech[:2])
    return [whole[:40_000], other[:40_000], whole[7_000:20_123], other[:16_000], whole[9_000:9_077]]


def opened(folder: str, num_codebooks: int | None = None) -> UnitTokenizer:
    tokenizer = open_tokenizer(folder, EMBEDDED, num_codebooks=num_codebooks)
    tokenizer.setup("cpu")
    return tokenizer


def by_transformers(folder: str, name: str, waveform: np.ndarray, **options: Any) -> np.ndarray:
    """(frames, codebooks): what the library says of one utterance, by its own feature extractor where it has one."""
    import soxr
    import torch
    import transformers

    rate = SHAPES[name][0]
    heard = soxr.resample(waveform, SAMPLE_RATE, rate)
    model = getattr(transformers, f"{name}Model").from_pretrained(folder)
    if name == "Dac":
        extractor = transformers.DacFeatureExtractor(sampling_rate=rate, hop_length=SHAPES[name][1])
    else:
        extractor = transformers.EncodecFeatureExtractor(sampling_rate=rate)
    values = extractor(heard, sampling_rate=rate, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        codes = model.encode(values, **options).audio_codes
    return codes.reshape(-1, codes.shape[-1]).T.numpy()


@pytest.mark.parametrize("name", SIZES)
def test_units_are_the_librarys(codecs: dict[str, str], waveforms: list[np.ndarray], name: str) -> None:
    options = {"bandwidth": 3.6} if name == "Encodec" else {}
    tokenizer = opened(codecs[name])
    assert (tokenizer.sampling_rate, tokenizer.hop_samples, tokenizer.num_codebooks) == SHAPES[name]
    for waveform, units in zip(waveforms, tokenizer(waveforms), strict=True):
        theirs = by_transformers(codecs[name], name, waveform, **options)
        assert units.dtype == np.int32 and np.array_equal(units, theirs[: len(units)])
        assert len(units) == tokenizer.num_frames(len(waveform))
    assert len({tuple(frame) for frame in tokenizer(waveforms)[0].tolist()}) > 9, "else it tests nothing"


@pytest.mark.parametrize("name", SIZES)
def test_neighbours_order_and_silence_after_them_change_nothing(
    codecs: dict[str, str], waveforms: list[np.ndarray], name: str
) -> None:
    tokenizer = opened(codecs[name])
    together = tokenizer(waveforms)
    backwards = tokenizer(waveforms[::-1])[::-1]
    for waveform, one, other in zip(waveforms, together, backwards, strict=True):
        assert np.array_equal(one, other) and np.array_equal(one, tokenizer([waveform])[0])


@pytest.mark.parametrize("name", SIZES)
def test_the_first_codebooks_are_those_of_all(codecs: dict[str, str], waveforms: list[np.ndarray], name: str) -> None:
    whole, ids = opened(codecs[name])(waveforms[:1])[0], set()
    for count in (1, 2, 3):
        tokenizer = opened(codecs[name], count)
        assert np.array_equal(tokenizer(waveforms[:1])[0], whole[:, :count])
        ids.add((tokenizer.codebook_id, tokenizer.digest))
    assert len(ids) == len({digest for _, digest in ids}) == 3


@pytest.mark.parametrize("name", SIZES)
def test_every_length_has_its_frames(codecs: dict[str, str], name: str) -> None:
    tokenizer = opened(codecs[name])
    rate, hop, codebooks = SHAPES[name]
    noise = np.random.default_rng(0).normal(0, 0.1, 4_000).astype(np.float32)
    for length in (1, 2, 159, 160, 161, 213, 214, 639, 640, 641, 1279, 1280, 1281, 3_999):
        (units,) = tokenizer([noise[:length]])
        assert units.shape == (-(-length * rate // (SAMPLE_RATE * hop)), codebooks)
        assert units.min() >= 0 and units.max() < tokenizer.codebook_size


def test_a_long_utterance_is_cut_at_whole_frames(
    codecs: dict[str, str], waveforms: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DAC's frames are no whole number of samples at 16 kHz: the cut is in its own, before the second is full."""
    import soxr

    tokenizer = opened(codecs["Dac"])
    monkeypatch.setattr("echo_targets.transforms.models.tokenizers.codec.CHUNK_SECONDS", 1)
    (units,) = tokenizer(waveforms[:1])
    assert len(units) == tokenizer.num_frames(len(waveforms[0]))
    heard = soxr.resample(waveforms[0], SAMPLE_RATE, 44_100)
    for start in range(0, len(heard), 86 * 512):
        alone = tokenizer._codes(heard[start : start + 86 * 512])  # type: ignore[attr-defined]
        assert np.array_equal(units[start // 512 :][: len(alone)], alone)


def test_units_do_not_depend_on_threads(codecs: dict[str, str], waveforms: list[np.ndarray]) -> None:
    import torch

    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append([opened(codecs[name])(waveforms[:1])[0].tolist() for name in SIZES])
    torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize(("name", "codebooks"), [("Encodec", None), ("Dac", 2), ("Mimi", 1)])
def test_through_the_whole_stage(
    codecs: dict[str, str], speech: list[dict], tmp_path: Path, name: str, codebooks: int | None
) -> None:
    lines = [json.dumps({"id": row["id"], "audio": str(row["audio"]), "text": row["text"]}) for row in speech[:3]]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    source = {"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}
    parameters = {"codebook": codecs[name], "num_codebooks": codebooks}
    stages = {"ingest": {"sources": [source]}, "tokenize": parameters, "publish_t2c": {"roles": ["narrator"]}}
    dataset, reports = run_stages(tmp_path / "root", stages)
    assert list(check_dataset(dataset.root)) == [] and reports["tokenize"].rows == 3
    tokenizer = opened(codecs[name], codebooks)
    heard = {row["id"]: soundfile.read(row["audio"], dtype="float32")[0] for row in speech[:3]}
    for row in dataset.read("units").to_pylist():
        frames = expand(np.array(row["units"]).T, np.array(row["durations"]))
        (expected,) = in_threads(lambda waveform: tokenizer([waveform])[0], [heard[row[KEY]]])  # as the stage hears
        assert np.array_equal(frames, expected)
        assert (row["layer"], row["num_codebooks"], row["codebook_id"]) == (
            None,
            codebooks or SHAPES[name][2],
            tokenizer.codebook_id,
        )
    assert dataset.read("training/t2c")["num_codebooks"].to_pylist() == [tokenizer.num_codebooks] * 3


def test_half_precision_is_for_encoders(codecs: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="remove dtype=bfloat16, which is for encoders"):
        Tokenize(TokenizeParameters(codebook=next(iter(codecs.values())), dtype="bfloat16")).weight_digests()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_stage_hears_more_utterances_than_there_are_threads(
    codecs: dict[str, str], ingested: Dataset, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    stage = Tokenize(TokenizeParameters(codebook=next(iter(codecs.values()))))
    stage.setup()
    assert len(apply(stage, window(ingested).slice(0, 3)).rows) == 3


def test_words_of_units_want_a_single_codebook(codecs: dict[str, str], ingested: Dataset, tmp_path: Path) -> None:
    language = tmp_path / "words.json"
    rng = np.random.default_rng(0)
    said = [rng.integers(0, 128, 40).tolist() for _ in range(9)]
    fitted = [collapse(np.array(row)[:, None])[0][:, 0].tolist() for row in said]
    UnitLanguage.fit(fitted, num_units=128, vocab_size=150).save(language)
    several = Tokenize(TokenizeParameters(codebook=codecs["Mimi"], unit_language=str(language)))
    with pytest.raises(ModelError, match=r"5 units per frame.*num_codebooks=1"):
        several.setup()
    one = Tokenize(TokenizeParameters(codebook=codecs["Mimi"], num_codebooks=1, unit_language=str(language)))
    one.setup()
    for row in apply(one, window(ingested).slice(0, 2)).rows.to_pylist():
        assert one.unit_language is not None and [one.unit_language.decode(row["unit_words"])] == row["units"]


def test_words_of_another_codebooks_units_are_refused(codecs: dict[str, str]) -> None:
    language = "embedded:unit-language-k100.json"
    message = r"is for 100 units, but mimi-.* has 128: fit one on its units"
    with pytest.raises(ModelError, match=message):
        Tokenize(TokenizeParameters(codebook=codecs["Mimi"], num_codebooks=1, unit_language=language)).setup()
    parameters = {"model": "embedded:nano-t2c", "text": "response", "codebook": codecs["Mimi"]}
    with pytest.raises(ModelError, match=message):
        Echo(EchoParameters.model_validate(parameters | {"unit_language": language})).setup()


def test_what_a_fingerprint_holds(codecs: dict[str, str], tmp_path: Path) -> None:
    def weights(folder: str, **more: Any) -> dict[str, str]:
        return Tokenize(TokenizeParameters(codebook=folder, **more)).weight_digests()

    copy = make_codec(tmp_path / "moved", "Mimi")
    assert weights(copy) == weights(codecs["Mimi"]) != weights(copy, num_codebooks=2)
    assert weights(copy, num_codebooks=5) == weights(copy)
    config = Path(make_codec(tmp_path / "changed", "Mimi"), "config.json")
    config.write_text(config.read_text().replace('"rope_theta": 300.0', '"rope_theta": 500.0'))
    assert weights(str(config.parent)) != weights(copy)
    one = EchoParameters(codebook=codecs["Mimi"]).open_codebook()
    assert (one.codebook_id, one.digest) == (opened(codecs["Mimi"], 1).codebook_id, opened(codecs["Mimi"], 1).digest)


def test_a_checkpoint_of_torch_is_read_as_weights_alone(codecs: dict[str, str], tmp_path: Path) -> None:
    import torch

    waveform = np.random.default_rng(0).normal(0, 0.1, 9_000).astype(np.float32)
    folder = make_codec(tmp_path / "bin", "Encodec", safe=False)
    assert np.array_equal(opened(folder)([waveform])[0], opened(codecs["Encodec"])([waveform])[0])
    file = Path(folder, "pytorch_model.bin")
    named = {"encoder.layers.0.conv.bias": Path, "filling": torch.zeros(300_000)}
    torch.save(named, file)  # a pickle that names something
    with pytest.raises(ModelError, match="transformers can't load the checkpoint"):
        opened(folder)
    file.unlink()
    with pytest.raises(ModelError, match="not a checkpoint; copy it again"):
        opened(folder)


BAD = [
    ("Encodec", {"audio_channels": 2}, "use EnCodec's 24 kHz model"),
    ("Encodec", {"chunk_length_s": 1.0, "overlap": 0.01}, "use EnCodec's 24 kHz model"),
    ("Encodec", {"codebook_size": 65_537}, "codebook_size is 65537; it must be 1 to 65536"),
    ("Encodec", {"codebook_size": "many"}, "not a configuration of Encodec"),
    ("Encodec", {"target_bandwidths": [1e6]}, "codebooks is .*; it must be 1 to 127"),
    ("Encodec", {"upsampling_ratios": []}, "."),
    ("Dac", {"downsampling_ratios": [2, 4, 8, 8, 8, 8, 8]}, "samples per frame is 262144"),
    ("Dac", {"downsampling_ratios": "x"}, "not a configuration of Dac"),
    ("Dac", {"sampling_rate": 0}, "sampling_rate is 0"),
    ("Mimi", {"num_quantizers": 0}, "."),
]


@pytest.mark.parametrize(("name", "changes", "message"), BAD, ids=lambda value: str(value))
def test_a_configuration_that_can_not_be_is_refused_before_anything_is_loaded(
    codecs: dict[str, str], tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    whole = Path(codecs[name])
    config = json.loads((whole / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        Codec(TokenizerSpec(tmp_path, EMBEDDED))


def test_what_is_asked_of_it_must_be_there(codecs: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="5 codebooks, but `num_codebooks` is 6"):
        Codec(TokenizerSpec(Path(codecs["Mimi"]), EMBEDDED, num_codebooks=6))
    for named in (
        TokenizerSpec(Path(codecs["Mimi"]), EMBEDDED, layer=3),
        TokenizerSpec(Path(codecs["Mimi"]), "/models/mhubert"),
    ):
        with pytest.raises(ModelError, match="its own encoder"):
            Codec(named)
    with pytest.raises(ModelError, match="a single codebook, but `num_codebooks` is 2"):
        Tokenize(TokenizeParameters(num_codebooks=2)).weight_digests()
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError):
        open_tokenizer(str(tmp_path), EMBEDDED)


def test_runs_are_of_frames_that_are_equal_in_all_codebooks() -> None:
    frames = np.array([[1, 5], [1, 5], [1, 6], [2, 6], [2, 6], [1, 5]])
    runs, durations = collapse(frames)
    assert runs.tolist() == [[1, 5], [1, 6], [2, 6], [1, 5]] and durations.tolist() == [2, 1, 2, 1]
    assert np.array_equal(expand(runs, durations), frames)
