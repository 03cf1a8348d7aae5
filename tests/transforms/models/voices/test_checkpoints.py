"""Voices of transformers: the library's own samples, whatever was spoken before; what they can't do is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch
import transformers

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.voices.base import NothingToSay, UnspeakableText, Voice
from echo_targets.transforms.models.voices.delivery import Delivery, deliver
from echo_targets.transforms.models.voices.registry import open_voice
from echo_targets.transforms.threads import in_threads, single_threaded
from tests.transforms.bin_files import as_bin
from tests.transforms.voice_checkpoints import make_bark, make_speecht5, make_vits

TEXTS = ("the old bridge", "where is it", "it's there")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("voices")
    return {
        "vits": make_vits(folder / "vits"),
        "speakers": make_vits(folder / "speakers", num_speakers=4, speaker_embedding_size=8, sampling_rate=16_000),
        "speecht5": make_speecht5(folder / "speecht5", ("anna.npy", "ben.safetensors")),
        "bark": make_bark(folder / "bark"),
    }


SPEAKERS = {"vits": None, "speakers": "2", "speecht5": "ben", "bark": "v2/en_speaker_1"}


def ready(folder: Path) -> Voice:
    voice = open_voice(str(folder))
    voice.setup()
    return voice


def as_pcm(samples: torch.Tensor, rate: int) -> np.ndarray:
    speech = samples.numpy() if rate == SAMPLE_RATE else soxr.resample(samples.numpy(), rate, SAMPLE_RATE)
    return np.rint(speech * 32768).clip(-32768, 32767).astype(np.int16)


def alone(speak: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What a library computes with one thread, as voices do, without gradients."""

    def spoken() -> torch.Tensor:
        with torch.no_grad():
            return speak()

    return single_threaded(spoken, "cpu")


def by_vits(folder: Path, text: str, seed: int, rate: float = 1.0, speaker: int | None = None) -> np.ndarray:
    model = transformers.VitsModel.from_pretrained(folder)
    model.speaking_rate *= rate
    inputs = transformers.VitsTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    torch.manual_seed(seed)
    return as_pcm(alone(lambda: model(**inputs, speaker_id=speaker).waveform[0]), model.config.sampling_rate)


@pytest.mark.parametrize("rate", [1.0, 0.7, 1.6])
def test_vits_is_the_librarys(folders: dict[str, Path], rate: float) -> None:
    voice = ready(folders["vits"])
    for seed, text in enumerate(TEXTS):
        speech = voice.speak(text, rate=rate, seed=seed)
        assert speech.dtype == np.float32
        assert np.array_equal(speech * 32768, by_vits(folders["vits"], text, seed, rate))
    lengths = [len(voice.speak(TEXTS[0], rate=pace)) for pace in (0.5, 1.0, 2.0)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > 1.5 * lengths[2]


def test_vits_has_speakers(folders: dict[str, Path]) -> None:
    voice, said = ready(folders["speakers"]), set()
    for speaker in range(4):
        speech = voice.speak(TEXTS[0], str(speaker), seed=3)
        assert np.array_equal(speech * 32768, by_vits(folders["speakers"], TEXTS[0], 3, speaker=speaker))
        said.add(speech.tobytes())
    assert len(said) == 4
    for other in (None, "4", "-1", "anna", "02"):
        with pytest.raises(ModelError, match="has speakers 0 to 3"):
            voice.speak(TEXTS[0], other)
    with pytest.raises(ModelError, match="has one speaker"):
        ready(folders["vits"]).speak(TEXTS[0], "0")


@pytest.mark.parametrize("speaker", ["anna", "ben"])
def test_speecht5_is_the_librarys(folders: dict[str, Path], speaker: str) -> None:
    from safetensors.torch import load_file

    folder = folders["speecht5"]
    voice, model = ready(folder), transformers.SpeechT5ForTextToSpeech.from_pretrained(folder)
    vocoder = transformers.SpeechT5HifiGan.from_pretrained(folder / "vocoder")
    tokenizer = transformers.SpeechT5Tokenizer.from_pretrained(folder)
    ben = load_file(folder / "ben.safetensors")["xvector"]
    vector = torch.from_numpy(np.load(folder / "anna.npy")) if speaker == "anna" else ben
    said = set()
    for seed, text in enumerate(TEXTS):
        torch.manual_seed(seed)
        inputs = tokenizer(text, return_tensors="pt")
        ids = inputs["input_ids"]
        expected = alone(lambda ids=ids: model.generate_speech(ids, vector[None], vocoder=vocoder))  # type: ignore[misc]
        speech = voice.speak(text, speaker, seed=seed)
        assert np.array_equal(speech * 32768, as_pcm(expected, 16_000))
        assert 0 < len(speech) < 20 * 20 * ids.shape[1], "else no stop was predicted"
        said.add(speech.tobytes())
    assert len(said) == len(TEXTS)


def test_speecht5_has_speakers_and_a_vocoder(folders: dict[str, Path], tmp_path: Path) -> None:
    voice = ready(folders["speecht5"])
    for other in (None, "carl", "anna.npy", "../anna"):
        with pytest.raises(ModelError, match="has the speakers anna, ben"):
            voice.check(other)
    with pytest.raises(ModelError, match="can't change its rate"):
        voice.check("anna", 1.1)
    one = ready(make_speecht5(tmp_path / "a" / "tts", vocoder="../hifigan"))
    assert np.array_equal(one.speak(TEXTS[0], seed=1), one.speak(TEXTS[0], "anna", seed=1))
    shutil.copytree(tmp_path / "a" / "hifigan", tmp_path / "a" / "other")
    with pytest.raises(ModelError, match="several vocoders: hifigan, other; keep one"):
        open_voice(str(tmp_path / "a" / "tts"))
    shutil.copytree(tmp_path / "a" / "tts", tmp_path / "b")
    with pytest.raises(ModelError, match="has no vocoder"):
        open_voice(str(tmp_path / "b"))
    (tmp_path / "a" / "tts" / "anna.npy").unlink()
    shutil.rmtree(tmp_path / "a" / "other")
    with pytest.raises(ModelError, match="has no speaker"):
        open_voice(str(tmp_path / "a" / "tts"))


@pytest.mark.parametrize(
    "vector", [np.zeros(11), np.full(12, np.nan), np.array([{}] * 12)], ids=["size", "nan", "object"]
)
def test_speecht5_takes_vectors_and_nothing_else(tmp_path: Path, vector: np.ndarray) -> None:
    folder = make_speecht5(tmp_path / "tts")
    np.save(folder / "anna.npy", vector, allow_pickle=True)
    with pytest.raises(ModelError, match=r"not an (x-vector of 12 finite numbers|array)"):
        ready(folder).speak(TEXTS[0])


def test_speecht5_speaks_up_to_its_positions(folders: dict[str, Path]) -> None:
    voice = ready(folders["speecht5"])
    longest = "a" * 68  # with a border of a word, and the end
    assert 0 < len(voice.speak(longest, "anna")) <= 90 * 3 * 20
    with pytest.raises(UnspeakableText, match=r"has 71 tokens, but speecht5-.* speaks at most 70"):
        voice.speak(longest + "a", "anna")


@pytest.mark.parametrize("speaker", [None, "v2/en_speaker_1"])
def test_bark_is_the_librarys(folders: dict[str, Path], speaker: str | None) -> None:
    folder = folders["bark"]
    voice, model = ready(folder), transformers.BarkModel.from_pretrained(folder)
    processor = transformers.BarkProcessor.from_pretrained(str(folder))
    said = set()
    for seed in range(4):
        inputs = processor(TEXTS[0], voice_preset=speaker, max_length=20)
        torch.manual_seed(seed)
        expected = as_pcm(alone(lambda inputs=inputs: model.generate(**inputs)[0]), 24_000)  # type: ignore[misc]
        speech = voice.speak(TEXTS[0], speaker, seed=seed)
        assert np.array_equal(speech * 32768, expected)
        said.add(len(speech))
    assert len(said) > 1, "else it never ends by itself"


def test_bark_says_what_is_too_long(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UnspeakableText, match=r"has 26 tokens, but bark-.* speaks at most 20"):
        ready(folders["bark"]).speak("abcdefghijklmnopqrstuvwxyz")
    short = ready(make_bark(tmp_path / "short", most_units=6))
    with pytest.raises(UnspeakableText, match=r"takes all of the 0\.1 s"):
        for seed in range(9):
            short.speak(TEXTS[0], seed=seed)
    with pytest.raises(ModelError, match="has v2/en_speaker_1; set `speaker`"):
        short.check("v2/de_speaker_1")
    (tmp_path / "short" / "generation_config.json").unlink()
    with pytest.raises(ModelError, match="has no generation_config"):
        open_voice(str(tmp_path / "short"))


@pytest.mark.parametrize("kind", SPEAKERS)
def test_speech_is_the_seeds_whatever_was_said_before(folders: dict[str, Path], kind: str) -> None:
    """In another order, in threads of the pool that encodes and in others, and with a voice that was loaded again."""
    voice, speaker = ready(folders[kind]), SPEAKERS[kind]
    rows = [(TEXTS[0], 3), (TEXTS[0], 4), (TEXTS[1], 4)]

    def speak(row: tuple[str, int]) -> np.ndarray:
        return voice.speak(row[0], speaker, seed=row[1])

    before = torch.random.get_rng_state()
    one = [speak(row) for row in rows]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len({speech.tobytes() for speech in one}) == len(rows)
    torch.manual_seed(99)
    with ThreadPoolExecutor(3) as pool:
        threads = list(pool.map(speak, rows))
    found = [threads, in_threads(speak, rows, at_once=2), [speak(row) for row in rows[::-1]][::-1]]
    voice = ready(folders[kind])
    found.append([speak(row) for row in rows])
    for other in found:
        assert all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", SPEAKERS)
def test_a_text_with_nothing_to_say(folders: dict[str, Path], kind: str) -> None:
    voice = ready(folders[kind])
    for text in ("", " \n", "...", "— !"):
        with pytest.raises(NothingToSay):
            voice.speak(text, SPEAKERS[kind])


@pytest.mark.parametrize("kind", SPEAKERS)
def test_letters_that_it_lacks_are_not_left_out(folders: dict[str, Path], kind: str) -> None:
    voice, speaker = ready(folders[kind]), SPEAKERS[kind]
    for text in ("room 7 is free", "добрый day"):
        with pytest.raises(UnspeakableText):
            voice.speak(text, speaker)
    assert np.array_equal(voice.speak("a café", speaker), voice.speak("a cafe", speaker))


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Rewrite a JSON file of a voice."""
    file = folder / name
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("kind", SPEAKERS)
def test_a_digest_is_of_the_files(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    before = open_voice(str(folders[kind]))
    copy = Path(shutil.copytree(folders[kind], tmp_path / "moved"))
    (copy / "README.md").write_text("nothing that it reads")
    assert open_voice(str(copy)).weight_digests() == before.weight_digests()
    assert (
        before.id == open_voice(str(copy)).id == f"{before.id.partition('-')[0]}-{before.weight_digests()['voice'][:8]}"
    )
    files = [file.relative_to(copy) for file in copy.rglob("*") if file.name != "README.md"]
    files = [file for file in files if (copy / file).is_file() and file.name != "speaker_embeddings_path.json"]
    digests = {before.weight_digests()["voice"]}
    for number, file in enumerate(files):
        other = Path(shutil.copytree(copy, tmp_path / str(number)))
        with (other / file).open("ab") as end:
            end.write(b" ")
        digests.add(open_voice(str(other)).weight_digests()["voice"])
    assert len(digests) == 1 + len(files) > 4


@pytest.mark.parametrize("kind", ["vits", "bark"])
def test_weights_as_they_are_published(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """With the names of weight norm that torch had before 2.1; and in a file of `torch.save`, which runs nothing."""
    from safetensors.torch import load_file, save_file

    folder, speaker = Path(shutil.copytree(folders[kind], tmp_path / "old")), SPEAKERS[kind]
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = load_file(folder / "model.safetensors")
    for name in list(state):
        for new, old in names.items():
            if name.endswith(new):
                state[name.replace(new, old)] = state.pop(name)
    assert any(name.endswith("weight_g") for name in state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    expected = ready(folders[kind]).speak(TEXTS[0], speaker, seed=3)
    assert np.array_equal(ready(folder).speak(TEXTS[0], speaker, seed=3), expected)
    as_bin(folder)
    assert np.array_equal(ready(folder).speak(TEXTS[0], speaker, seed=3), expected)
    torch.save({"filling": Path}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"can't load the checkpoint|numbers"):
        ready(folder)


def test_wrong_directories(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a directory"):
        open_voice(str(tmp_path / "none"))
    with pytest.raises(ModelError, match="the embedded voice is embedded:hibari"):
        open_voice("embedded:heart")
    with pytest.raises(ModelError, match="copy the whole checkpoint"):
        open_voice(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    with pytest.raises(ModelError, match="model_type is 'hubert'; voices are vits, speecht5, bark"):
        open_voice(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "vits", "num_speakers": 1}')
    with pytest.raises(ModelError, match="so it is not a checkpoint"):
        open_voice(str(tmp_path))
    larger = shutil.copytree(folders["vits"], tmp_path / "larger")
    with pytest.raises(ModelError, match=r"it describes .* numbers"):
        ready(changed(Path(larger), "config.json", lambda about: about.update(ffn_dim=100_000)))


@pytest.mark.parametrize(
    ("option", "package"), [({"phonemize": True}, "phonemizer"), ({"is_uroman": True}, "uroman")], ids=str
)
def test_a_tool_that_is_not_installed_is_named(
    tmp_path: Path, option: dict[str, bool], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{open_voice.__module__.rpartition('.')[0]}.vits.find_spec", lambda name: None)
    folder = make_vits(tmp_path / "v", tokenizer=option)
    with pytest.raises(ModelError, match=f"pip install {package}"):
        open_voice(str(folder))


def test_delivery_is_for_any_voice(folders: dict[str, Path]) -> None:
    voice = ready(folders["vits"])
    plain = deliver(voice, TEXTS[0], seed=4)
    assert np.array_equal(plain, voice.speak(TEXTS[0], seed=4))
    soft = deliver(voice, TEXTS[0], Delivery(gain_db=-6.0), 4)
    within = np.abs(plain) < 0.99  # full scale
    np.testing.assert_allclose(soft[within], plain[within] * 10 ** (-6 / 20), atol=5e-5)
    assert len(deliver(voice, TEXTS[0], Delivery(speed=2.0), 4)) < len(plain)
    with pytest.raises(ModelError, match="can't change its rate"):
        deliver(ready(folders["bark"]), TEXTS[0], Delivery(pitch=1.0))
