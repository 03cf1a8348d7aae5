"""speechbrain's unit HiFi-GAN: its own waveforms, a row's whatever its neighbours, and readers that listen to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.readers.ctc import UnitReader, target_cer
from echo_targets.transforms.models.readers.registry import open_reader, reader_weights
from echo_targets.transforms.models.readers.vocoder import VocoderReader
from echo_targets.transforms.models.vocoders.hifigan import LONGEST_FRAMES, UnitHifigan
from echo_targets.transforms.models.vocoders.registry import is_vocoder, open_vocoder, vocoder_digest
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.stage import Echo
from tests.transforms.speechbrain_checkpoints import make_vocoder, unit_hifigan

K = 20
TEXT_ALONE = {"model": "embedded:nano-t2c", "text": "response"}


def said(vocoder: UnitHifigan, rows: list[list[int]]) -> list[np.ndarray]:
    return [vocoder.speak([row]) for row in rows]


def rows_of(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[int(unit) for unit in np.cumsum(rng.integers(1, K, length)) % K] for length in lengths]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vocoder(tmp_path_factory.mktemp("vocoder"), K + 1)


@pytest.mark.parametrize("more", [{}, {"pooling_type": "none"}, {"pooling_type": "sum"}, {"conv_post_bias": False}])
@pytest.mark.parametrize("resblock", ["1", "2"])
def test_waveforms_are_those_of_speechbrain(tmp_path: Path, resblock: str, more: dict[str, Any]) -> None:
    if resblock == "2":
        more = more | {"resblock_type": "2", "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]]}
        more |= {"resblock_kernel_sizes": [3, 5, 7]}
    vocoder, library = UnitHifigan(make_vocoder(tmp_path, K + 1, **more)), unit_hifigan(tmp_path)
    for row, found in zip(rows_of(9, 40, 23), said(vocoder, rows_of(9, 40, 23)), strict=True):
        expected = library.decode_unit(torch.tensor(row)[:, None])[0].numpy()
        assert found.dtype == np.float32 and len(set(np.diff(found))) > 100
        assert np.array_equal(found, expected)
        assert len(found) % 320 == 0 and len(found) > 320 * len(row)  # some units last longer than a frame


def test_neighbours_change_nothing(folder: Path) -> None:
    vocoder, rows = UnitHifigan(folder), rows_of(30, 1, 7, 0, 30)
    together = said(vocoder, rows)
    for row, found in zip(rows[::-1], said(vocoder, rows[::-1]), strict=True):
        assert np.array_equal(found, together[rows.index(row)])
    assert len(together[3]) == 0 and len(vocoder.speak([])) == 0


def test_a_run_is_said_once(folder: Path) -> None:
    """The vocoder predicts durations, so it takes frames and collapsed units alike."""
    vocoder, (row,) = UnitHifigan(folder), rows_of(9)
    assert np.array_equal(vocoder.speak(np.repeat([row], 3, axis=1)), vocoder.speak([row]))
    with pytest.raises(ValueError, match="2 codebooks, but the vocoder has one"):
        vocoder.speak([row, row])


def test_short_rows_are_said_too(folder: Path) -> None:
    """speechbrain refuses them, whose convolutions pad by reflection."""
    vocoder, library = UnitHifigan(folder), unit_hifigan(folder)
    for length in range(1, 8):
        (row,) = rows_of(length)
        found = vocoder.speak([row])
        assert len(found) >= 6 * 320
        if length >= 4:
            try:
                expected = library.decode_unit(torch.tensor(row)[:, None])[0].numpy()
            except RuntimeError:
                continue
            assert np.array_equal(found, expected)


def test_no_unit_is_endless(tmp_path: Path) -> None:
    make_vocoder(tmp_path, K + 1)
    state = torch.load(tmp_path / "generator.ckpt", weights_only=True)
    state["var_predictor.proj.bias"] += 60
    torch.save(state, tmp_path / "generator.ckpt")
    found = UnitHifigan(tmp_path).speak(rows_of(3))
    assert len(found) == 3 * LONGEST_FRAMES * 320


def test_as_speechbrain_1_0_made_them(tmp_path: Path, folder: Path) -> None:
    """Another name in the YAML, no pooling of codebooks, and the names of weight norm that torch had before 2.1."""
    yaml = make_vocoder(tmp_path, K + 1) / "hyperparams.yaml"
    yaml.write_text(yaml.read_text().replace("vocab_size", "num_embeddings"))
    state = torch.load(tmp_path / "generator.ckpt", weights_only=True)
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for name in list(state):
        for new, old in names.items():
            if name.endswith(new):
                state[name.replace(new, old)] = state.pop(name)
        if name.startswith("attn_pooling"):
            del state[name]
    torch.save(state, tmp_path / "generator.ckpt")
    assert np.array_equal(UnitHifigan(tmp_path).speak(rows_of(12)), UnitHifigan(folder).speak(rows_of(12)))


def test_yaml_makes_nothing(tmp_path: Path) -> None:
    make_vocoder(tmp_path, K + 1)
    path, marker = tmp_path / "hyperparams.yaml", tmp_path / "ran"
    safe = path.read_text()
    path.write_text(f"{safe}\nother: !apply:os.mkdir [{marker}]\nmore: !new:pathlib.Path [a]\nseed: !apply:os.getpid\n")
    UnitHifigan(tmp_path)
    assert not marker.exists()
    for tag in (f"!!python/object/apply:os.mkdir [{marker}]", f"!apply:os.mkdir [{marker}]", f"!new:{marker}"):
        path.write_text(safe.replace("vocab_size: 21", f"vocab_size: {tag}"))
        with pytest.raises(ModelError, match=r"hyperparams\.yaml"):
            UnitHifigan(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("sample_rate: 16000", "sample_rate: 22050", "its rate is 22050 Hz"),
        ("duration_predictor: True", "duration_predictor: False", "duration_predictor: .* a duration predictor"),
        ("vocab_size: 21\n", "vocab_size: 21\nmulti_speaker: True\n", "in_channels|multi_speaker"),
        ("upsample_factors: [5, 4, 4, 2, 2]", "upsample_factors: [8, 8, 2, 2]", "a unit is 256 samples"),
        ("vocab_size: 21", "vocab_size: 1000000000000", "vocab_size: Input should be less"),
        ("vocab_size: 21", "vocab_size: 50000", r"unit_embedding.weight is \(21, 16\), expected \(50000, 16\)"),
        ("vocab_size: 21", "vocab_size: !ref <embedding_dim> + 5", r"can't be resolved; replace it with the value"),
        ("vocab_size: 21", "vocab_size: !ref <vocab_size>", "can't be resolved"),
        ("vocab_size: 21", "vocab_size: &a [*a]", "an alias contains itself"),
        ("HifiGAN.UnitHifiganGenerator", "HifiGAN.HifiganGenerator", "supported: UnitHifiganGenerator"),
        ("generator: !new:", "generators: !new:", "has no `generator: !new:`"),
        ("[[1, 3, 5], [1, 3, 5], [1, 3, 5]]", "[[1, 3, 5]]", "inconsistent sizes of the generator"),
        ("in_channels: 16", "in_channels: 17", "in_channels is 17"),
        ("sample_rate: 16000", "sample_rate: [16000", "can't be parsed"),
        ("sample_rate: 16000", "a: " + "[" * 5000, "can't be parsed"),
    ],
)
def test_what_is_refused_says_why(tmp_path: Path, old: str, new: str, why: str) -> None:
    path = make_vocoder(tmp_path, K + 1) / "hyperparams.yaml"
    text = path.read_text()
    assert old in text
    text = text.replace(old, new)
    if "multi_speaker" in new:
        text = text.replace("<vocab_size>\n", "<vocab_size>\n    multi_speaker: !ref <multi_speaker>\n")
    path.write_text(text)
    with pytest.raises(ModelError, match=why):
        UnitHifigan(tmp_path)


def test_damaged_weights_and_other_units_are_refused(tmp_path: Path) -> None:
    vocoder, file = UnitHifigan(make_vocoder(tmp_path, K + 1)), tmp_path / "generator.ckpt"
    for unit in (-1, K):
        with pytest.raises(ValueError, match=r"not all in \[0, 20\)"):
            vocoder.speak([[1, unit]])
    whole, state = file.read_bytes(), torch.load(file, weights_only=True)
    state["conv_pre.conv.bias"][0] = float("nan")
    torch.save(state, file)
    with pytest.raises(ModelError, match=r"conv_pre\.conv\.bias has values that are not finite"):
        UnitHifigan(tmp_path)
    state["conv_pre.conv.bias"] = torch.zeros(1).expand(64)
    torch.save(state, file)
    with pytest.raises(ModelError, match=r"conv_pre\.conv\.bias claims more numbers than the file holds"):
        UnitHifigan(tmp_path)
    file.write_bytes(whole[:1000])
    with pytest.raises(ModelError, match="damaged, or more than tensors"):
        UnitHifigan(tmp_path)
    torch.save([1], file)
    with pytest.raises(ModelError, match="not a dictionary of tensors"):
        UnitHifigan(tmp_path)
    (tmp_path / "hyperparams.yaml").unlink()
    with pytest.raises(ModelError, match="copy the whole speechbrain directory"):
        UnitHifigan(tmp_path)


def test_a_reader_is_of_the_kind_that_its_files_say(tmp_path: Path, folder: Path) -> None:
    from tests.transforms.stages.test_echo import untrained_reader

    untrained_reader("letters").save(tmp_path)
    assert isinstance(open_reader(tmp_path, EMBEDDED, "cpu"), UnitReader) and not is_vocoder(tmp_path)
    assert set(reader_weights(tmp_path, EMBEDDED)) == {"reader"}
    assert isinstance(open_reader(folder, EMBEDDED, "cpu"), VocoderReader) and is_vocoder(folder)
    assert isinstance(open_vocoder(folder), UnitHifigan)
    assert set(reader_weights(folder, EMBEDDED)) == {"reader", "reader_whisper"}
    with pytest.raises(ModelError, match="not a unit reader"):
        open_reader(tmp_path / "none", EMBEDDED, "cpu")


def test_echo_takes_it_as_its_reader(tmp_path: Path) -> None:
    def echo(reader: Path) -> Echo:
        return Echo(EchoParameters.model_validate({**TEXT_ALONE, "reader": str(reader)}))

    voice = make_vocoder(tmp_path / "a", 101)
    before = echo(voice).weight_digests()
    echo(voice).setup()
    assert echo(voice.rename(tmp_path / "b")).weight_digests() == before and before["reader"] == vocoder_digest(
        tmp_path / "b"
    )
    assert (
        echo(tmp_path / "b").fingerprint_parameters()
        == Echo(EchoParameters.model_validate(TEXT_ALONE)).fingerprint_parameters()
    )
    with pytest.raises(ModelError, match=r"has 20 units, but whisper-tiny\.en-l3-k100-.* has 100"):
        echo(make_vocoder(tmp_path / "c", K + 1)).setup()


def test_a_reply_reads_alike_alone_and_in_any_company(folder: Path) -> None:
    reader = VocoderReader(folder, EMBEDDED, "cpu")
    replies = [[[row] for row in rows] for rows in (rows_of(20, 3), [[]], rows_of(12))]
    alone = [reader.read_replies([reply])[0] for reply in replies]
    assert reader.read_replies(replies) == alone and reader.read_replies(replies[::-1]) == alone[::-1]
    assert alone[1] == "" and reader.read_replies([]) == []


@pytest.mark.slow
def test_whisper_writes_down_what_a_vocoder_says(
    folder: Path, speech: list[dict[str, Any]], long_utterance: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded speech in the place of a trained vocoder's, which no package has."""
    rows = [long_utterance, speech[5]]
    waveforms = iter([soundfile.read(row["audio"], dtype="float32")[0] for row in rows])
    reader = VocoderReader(folder, EMBEDDED, "cpu")
    given: list[list[list[int]]] = []

    def speak(frames: np.ndarray) -> np.ndarray:
        given.append(frames.tolist())
        return next(waveforms)

    monkeypatch.setattr(reader._vocoder, "speak", speak)
    rates = target_cer(reader, [row["text"] for row in rows], [[[[1, 2]], [[2, 3]]], [[[4]]]], [[[1, 2], [1, 1]], None])
    assert given == [[[1, 2, 2, 2, 3]], [[4]]]
    assert all(rate is not None and rate < 0.15 for rate in rates), rates
    assert rates[0] != 0
