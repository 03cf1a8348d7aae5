"""Vocabularies of CTC checkpoints as their publishers' tools write them: what is spelled, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import plan
from echo_targets.pipeline.stage import StageSpec
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.letters import LetterAligner
from echo_targets.transforms.models.aligners.wav2vec2 import SslCtc
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.stages.align import Align, AlignParameters
from tests.transforms.ssl_checkpoints import make_ssl

UPPER = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
"""facebook/wav2vec2-base-960h, facebook/hubert-large-ls960-ft."""
LOWER_FIRST = ["<pad>", "<s>", "</s>", "<unk>", "|", *"'-abcdefghijklmnopqrstuvwxyz"]
"""jonatasgrosman/wav2vec2-large-xlsr-53-english."""
LOWER_LAST = ["|", *"abcdefghijklmnopqrstuvwxyz", "[UNK]", "[PAD]"]
"""The fine-tuning recipes of transformers; `<s>` and `</s>` are added after them."""
CHINESE = ["[PAD]", "[UNK]", *"天今好我们学习中文"]
ENGLISH = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ethinaos"])}
FRENCH = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"saéàeithnçô"])}
ESPEAK = ["<pad>", "<s>", "</s>", "<unk>", *"nstəlaikdmeɾəpoɐzɹɪ", "aɪ", "iː", "tʃ"]
"""facebook/wav2vec2-lv-60-espeak-cv-ft has 392 of them."""


def save_tokenizer(folder: Path, vocabulary: dict[str, Any], **about: Any) -> Any:
    """Writes a vocabulary with transformers' own tokenizer; returns it."""
    from transformers import Wav2Vec2CTCTokenizer

    source = folder / "source.json"
    source.write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = Wav2Vec2CTCTokenizer(str(source), **about)
    tokenizer.save_pretrained(folder)
    source.unlink()
    return tokenizer


def make_ctc(folder: Path, tokens: list[str], norm: str = "layer", **about: Any) -> Any:
    """Saves a checkpoint with these tokens, as the fine-tuning recipes of transformers do; returns its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder, {token: number for number, token in enumerate(tokens)}, **about)
    make_ssl(folder, "wav2vec2", norm, head=True, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    return tokenizer


def opened(folder: Path, language: str = "en") -> LetterAligner:
    aligner = LetterAligner(SslCtc(str(folder), "cpu", language))
    aligner.setup()
    return aligner


BRACKETS = {"unk_token": "[UNK]", "pad_token": "[PAD]"}


@pytest.mark.parametrize(
    ("tokens", "about", "words"),
    [
        (UPPER, {}, {"DON'T": "DON'T", "Café": "CAFE"}),
        (LOWER_FIRST, {}, {"well-known": "well-known", "Don't": "don't"}),
        (LOWER_LAST, BRACKETS, {"Hello": "hello"}),
        (UPPER, {"do_lower_case": True}, {"hello": "hello"}),
        ([*UPPER, *"abc"], {"do_lower_case": True}, {"abc": "abc"}),
        ([*UPPER[:4], "_", *UPPER[5:]], {"word_delimiter_token": "_"}, {"BY": "BY"}),
        ([*UPPER[:4], " ", *UPPER[5:]], {"word_delimiter_token": " "}, {"BY": "BY"}),
        (CHINESE, {**BRACKETS, "word_delimiter_token": None}, {"天": "天"}),
    ],
)
def test_letters_are_those_of_the_tokenizer(
    tmp_path: Path, tokens: list[str], about: dict[str, Any], words: dict[str, str]
) -> None:
    tokenizer = make_ctc(tmp_path, tokens, **about)
    aligner = opened(tmp_path)
    for word, spelled in words.items():
        assert aligner.tokens(word) == tuple(tokenizer.encode(spelled, add_special_tokens=False))
    vocabulary = aligner._ctc.vocabulary()
    assert vocabulary.blank == tokenizer.pad_token_id
    delimiter = about.get("word_delimiter_token", "|")
    assert vocabulary.border == (tokens.index(delimiter) if delimiter in tokens else None)
    assert aligner.tokens("|") is None and aligner.tokens("_") is None and aligner.tokens("1998") is None
    sample = np.random.default_rng(1).normal(0, 0.1, 4_000).astype(np.float32)
    assert aligner.emissions(sample).shape == (13, len(tokenizer))


def test_fingerprints_see_every_file_of_the_vocabulary(tmp_path: Path) -> None:
    make_ctc(tmp_path / "whole", LOWER_LAST, **BRACKETS)
    seen = {SslCtc(str(tmp_path / "whole"), "cpu").weight_digest()}
    for name in ("vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        path = tmp_path / name / name
        path.write_text((path.read_text() if path.exists() else "{}") + "\n")  # transformers 5 writes fewer files
        seen.add(SslCtc(str(tmp_path / name), "cpu").weight_digest())
    assert len(seen) == 5


def make_mms(folder: Path) -> None:
    """Saves a small facebook/mms-1b-all, with the files that transformers' recipe for its adapters writes."""
    import torch
    from safetensors.torch import save_file
    from transformers import Wav2Vec2ForCTC

    folder.mkdir()
    save_tokenizer(
        folder, {"eng": ENGLISH, "fra": FRENCH, "kir": ENGLISH, "azj-script_latin": FRENCH}, target_lang="eng"
    )
    make_ssl(folder, "wav2vec2", "layer", head=True, vocab_size=len(ENGLISH), pad_token_id=0, adapter_attn_dim=8)
    for language, vocabulary in (("eng", ENGLISH), ("fra", FRENCH)):
        network = Wav2Vec2ForCTC.from_pretrained(folder, vocab_size=len(vocabulary), ignore_mismatched_sizes=True)
        if language == "fra":
            with torch.random.fork_rng():
                torch.manual_seed(3)
                for parameter in network._get_adapters().values():
                    torch.nn.init.normal_(parameter, std=0.5)
        save_file(network._get_adapters(), folder / f"adapter.{language}.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("language", "own", "letters"), [("en", "eng", ENGLISH), ("fr", "fra", FRENCH), ("fra", "fra", FRENCH)]
)
def test_mms_uses_the_adapter_and_the_head_of_the_language(
    tmp_path: Path, speech: list[dict[str, Any]], language: str, own: str, letters: dict[str, int]
) -> None:
    import torch
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    make_mms(tmp_path / "mms")
    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    inputs = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "mms")(
        waveform, sampling_rate=16_000, return_tensors="pt"
    )
    theirs = Wav2Vec2ForCTC.from_pretrained(tmp_path / "mms", target_lang=own, ignore_mismatched_sizes=True).eval()
    with torch.inference_mode():
        expected = theirs(inputs.input_values).logits[0].log_softmax(-1).numpy()
    aligner = opened(tmp_path / "mms", language)
    found = aligner.emissions(waveform)[: len(expected)]
    assert found.shape[1] == len(letters)
    np.testing.assert_allclose(np.delete(found, 0, 1), np.delete(expected, 0, 1), rtol=1e-4, atol=1e-4)
    assert aligner.tokens("thé") == tuple(letters[each] for each in ("thé" if own == "fra" else "the"))


def test_mms_without_the_language_or_its_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "mms"
    make_mms(folder)
    weights = {language: SslCtc(str(folder), "cpu", language).weight_digest() for language in ("en", "fr")}
    assert len(set(weights.values())) == 2 and SslCtc(str(folder), "cpu", "eng").weight_digest() == weights["en"]
    with pytest.raises(
        ModelError, match=r"vocab\.json has the letters of azj-script_latin, eng, fra, kir, but align\.language is 'de'"
    ):
        SslCtc(str(folder), "cpu", "de").weight_digest()
    with pytest.raises(
        ModelError, match=r"adapter\.kir\.safetensors is missing. It holds the adapter layers and the head of 'kir'"
    ):
        SslCtc(str(folder), "cpu", "ky").weight_digest()
    (folder / "adapter.eng.safetensors").unlink()
    opened(folder, "en")  # the main weights are English
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_lang": "fra"}))
    with pytest.raises(ModelError, match=r"adapter\.eng\.safetensors is missing"):
        SslCtc(str(folder), "cpu", "en").weight_digest()
    (folder / "adapter.fra.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"adapter\.fra\.safetensors: missing or damaged"):
        opened(folder, "fr")


def test_an_adapter_of_torch_is_read_as_tensors_alone(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    make_mms(tmp_path / "mms")
    safe = tmp_path / "mms" / "adapter.fra.safetensors"
    tensors = load_file(safe)
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    before = opened(tmp_path / "mms", "fr").emissions(noise)
    safe.unlink()
    torch.save(tensors, tmp_path / "mms" / "adapter.fra.bin")
    assert np.array_equal(opened(tmp_path / "mms", "fr").emissions(noise), before)
    torch.save({**tensors, "lm_head.bias": tmp_path}, tmp_path / "mms" / "adapter.fra.bin")
    with pytest.raises(ModelError, match=r"adapter\.fra\.bin: damaged, or more than tensors"):
        opened(tmp_path / "mms", "fr")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_mms(tmp_path / "mms")
    path = tmp_path / "mms" / "adapter.fra.safetensors"
    tensors = load_file(path)
    tensors.pop("wav2vec2.encoder.layers.1.adapter_layer.norm.weight")
    save_file(tensors, path)
    with pytest.raises(
        ModelError, match=r"adapter\.fra.*missing wav2vec2\.encoder\.layers\.1\.adapter_layer\.norm\.weight"
    ):
        opened(tmp_path / "mms", "fr")


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_tokens_that_are_sounds_spell_no_words(tmp_path: Path) -> None:
    """facebook/wav2vec2-lv-60-espeak-cv-ft, and the same sounds behind a tokenizer of letters."""
    from transformers import Wav2Vec2PhonemeCTCTokenizer

    tokens = list(dict.fromkeys(ESPEAK))
    make_ctc(tmp_path / "a", tokens)
    with pytest.raises(ModelError, match=r"'aɪ' is not a letter"):
        SslCtc(str(tmp_path / "a"), "cpu").weight_digest()
    make_ctc(tmp_path / "b", [token for token in tokens if len(token) == 1 or token[0] == "<"])
    with pytest.raises(ModelError, match=r"its tokens are sounds \(ɐ, ɹ, ɾ\), which can't spell words"):
        SslCtc(str(tmp_path / "b"), "cpu").weight_digest()
    Wav2Vec2PhonemeCTCTokenizer(str(tmp_path / "b" / "vocab.json"), do_phonemize=False).save_pretrained(tmp_path / "b")
    with pytest.raises(
        ModelError, match="its tokens are sounds, which can't spell words; to align, use a model of letters"
    ):
        SslCtc(str(tmp_path / "b"), "cpu").weight_digest()


def test_letters_that_are_ipa_symbols_too_are_letters(tmp_path: Path) -> None:
    """Ewe and Azerbaijani."""
    make_ctc(tmp_path, [*LOWER_FIRST, *"ɖɛƒɣŋɔʋə"])
    assert opened(tmp_path).tokens("ŋkɔ") is not None


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("config.json", {"vocab_size": 20}, r"vocab\.json: the id of the blank is 28, but the model has 20 outputs"),
        ("config.json", {"pad_token_id": 5}, r"pad_token_id, CTC's blank, is 5, but '\[PAD\]' of vocab\.json is 28"),
        ("config.json", {"pad_token_id": None}, r"pad_token_id is None; set it to the id of CTC's blank"),
        ("vocab.json", {"the": 9}, r"'the' is not a letter, but a piece of a word"),
        ("vocab.json", {"é": 28}, r"'é' has the id 28 of the blank"),
        ("vocab.json", {"é": 0}, r"'é' has the id 0 of the border between words"),
        ("vocab.json", {"é": -1}, r"the id of 'é' is -1"),
        ("vocab.json", {"é": "1"}, r"not letters and their ids"),
        ("tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"}, "its tokenizer is ByT5Tokenizer"),
    ],
)
def test_what_is_refused_before_anything_runs(tmp_path: Path, name: str, values: dict[str, Any], why: str) -> None:
    make_ctc(tmp_path, LOWER_LAST, **BRACKETS)
    changed(tmp_path / name, **values)
    with pytest.raises(ModelError, match=why):
        Align(AlignParameters(model=str(tmp_path))).weight_digests()


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("config.json", {"add_adapter": True}, "add_adapter is set, so the model's frames are longer than 320 samples"),
        ("preprocessor_config.json", {"sampling_rate": 8_000}, "the encoder is for 8000 Hz"),
        (
            "preprocessor_config.json",
            {"feature_extractor_type": "SeamlessM4TFeatureExtractor"},
            "takes features of SeamlessM4TFeatureExtractor, not waveforms",
        ),
        ("preprocessor_config.json", {"feature_size": 80}, "not waveforms"),
        ("preprocessor_config.json", {"do_normalize": "false"}, "do_normalize is 'false'; set it to true or false"),
    ],
)
def test_values_that_change_the_computation_are_refused(
    tmp_path: Path, name: str, values: dict[str, Any], why: str
) -> None:
    make_ctc(tmp_path, UPPER)
    changed(tmp_path / name, **values)
    with pytest.raises(ModelError, match=why):
        opened(tmp_path)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_values_that_change_the_computation_are_honored(
    tmp_path: Path, speech: list[dict[str, Any]], norm: str
) -> None:
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForCTC

    make_ctc(tmp_path, UPPER, norm)
    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    changed(tmp_path / "config.json", hidden_act="relu", mask_time_prob=0.9, layerdrop=0.5)
    changed(tmp_path / "preprocessor_config.json", do_normalize=norm == "group")  # the other way than published
    inputs = AutoFeatureExtractor.from_pretrained(tmp_path)(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        logits = AutoModelForCTC.from_pretrained(tmp_path).eval()(inputs.input_values).logits
    expected = logits[0].log_softmax(-1).numpy()
    found = opened(tmp_path).emissions(waveform)[: len(expected)]
    np.testing.assert_allclose(np.delete(found, 0, 1), np.delete(expected, 0, 1), rtol=1e-4, atol=1e-4)


def job_of(folder: Path, texts: list[str], model: Path, **align: Any) -> Job:
    """A job that aligns these texts, which are said to be spoken in files that nothing opens."""
    soundfile.write(folder / "a.wav", np.zeros(16_000), 16_000)
    lines = [json.dumps({"id": f"{n}", "audio": "a.wav", "text": text}) for n, text in enumerate(texts)]
    (folder / "m.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = ManifestSource(kind="manifest", corpus="texts", manifest=str(folder / "m.jsonl"))
    spec = StageSpec("echo_targets.transforms.stages.align:Align", {"model": str(model), **align})
    return Job(str(folder / "root"), plan(entries([source]), 1.0), [spec], 1.0)


def test_a_vocabulary_of_another_script_is_refused_before_anything_runs(tmp_path: Path) -> None:
    make_ctc(tmp_path / "model", UPPER)
    russian = ["Привет, мир", "Как дела?", "hello"]
    why = r"vocab\.json lacks 7\d% of the letters in the reference texts, such as .*е.*; set align\.model to a model of"
    job = job_of(tmp_path, russian, tmp_path / "model")
    for use in (lambda: list(job.preview()), lambda: list(job.describe())):
        with pytest.raises(ModelError, match=why):
            use()
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "texts", [["Naïve café, 1984", "№ 5"], ["Привет", "and a much longer English sentence"], ["1984"], [""]]
)
def test_a_few_odd_letters_are_no_reason_to_refuse(tmp_path: Path, texts: list[str]) -> None:
    make_ctc(tmp_path / "model", UPPER)
    assert [info.stage for _, info in job_of(tmp_path, texts, tmp_path / "model").describe()] == ["align"]


def test_transcripts_are_not_known_before_they_are_made(tmp_path: Path) -> None:
    make_ctc(tmp_path / "model", UPPER)
    assert list(job_of(tmp_path, ["Привет"], tmp_path / "model", text="transcript").describe())
