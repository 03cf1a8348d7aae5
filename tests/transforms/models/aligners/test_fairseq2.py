"""Alignment with recognizers of fairseq2: its own emissions, letters of its own vocabulary."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import TRANSCRIPTS
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import joined
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.fairseq2 import Fairseq2Ctc
from echo_targets.transforms.models.aligners.letters import LetterAligner
from echo_targets.transforms.models.encoders.fairseq2 import Fairseq2Encoder
from echo_targets.transforms.stages.align import Align, AlignParameters
from tests.transforms.fairseq2_checkpoints import KINDS, as_fairseq, make_model, save, write_card
from tests.transforms.rows import apply, window
from tests.transforms.ssl_checkpoints import make_ssl

if find_spec("fairseq2n") is None:
    pytest.skip("fairseq2 has no wheels for this Python", allow_module_level=True)

LETTERS = "|ETAONIHSRDLUMWCFGYPBVK'XJQZ"
SIZE = 4 + len(LETTERS)


def write_dictionary(folder: Path, letters: str = LETTERS) -> None:
    """As fairseq's `Dictionary.save` writes it: no special tokens."""
    (folder / "dict.ltr.txt").write_text("".join(f"{letter} {9_000 - n}\n" for n, letter in enumerate(letters)))


def write_pieces(folder: Path, kind: str = "char", size: int = SIZE) -> None:
    """A SentencePiece model of these letters, by its own trainer."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([LETTERS.replace("|", " "), "A BIRD IN THE HAND", "AND THE REST OF THEM"] * 20),
        model_prefix=str(folder / "tokenizer"),
        model_type=kind,
        vocab_size=size,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )


def make_ctc(folder: Path, kind: str = "large", form: str = "pt") -> tuple[str, Any]:
    network, config = make_model(kind, letters=SIZE)
    return save(folder, kind, network, config, form), network


def ready(model: str) -> LetterAligner:
    aligner = LetterAligner(Fairseq2Ctc(model, "cpu"))
    aligner.setup()
    return aligner


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["pt", "shards"])
def test_emissions_are_those_of_fairseq2(tmp_path: Path, speech: list[dict], kind: str, form: str) -> None:
    import sentencepiece
    import torch
    from fairseq2.nn import BatchLayout

    model, network = make_ctc(tmp_path, kind, form)
    write_pieces(tmp_path)
    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    aligner = ready(model)
    heard = torch.from_numpy(waveform)
    if kind == "large":
        heard = torch.nn.functional.layer_norm(heard, heard.shape)
    with torch.inference_mode():
        logits, _ = network(heard[None], BatchLayout.of(heard[None]))
        expected = logits[0].log_softmax(-1).numpy()
    found = aligner.emissions(waveform)[: len(expected)]
    tokenizer = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    border = tokenizer.piece_to_id("▁")
    np.testing.assert_allclose(np.delete(found, 0, 1), np.delete(expected, 0, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[:, 0], np.logaddexp(expected[:, 0], expected[:, border]), rtol=1e-4, atol=1e-4)
    assert aligner.tokens("don't") == tuple(tokenizer.encode("DON'T"))[1:]  # without the space before it


def test_a_recognizer_of_fairseq_is_the_same_with_its_dictionary(tmp_path: Path, speech: list[dict]) -> None:
    """And fairseq2's own converter gives its names the same meaning."""
    import torch
    from fairseq2.models.wav2vec2.asr import convert_wav2vec2_asr_state_dict, create_wav2vec2_asr_model
    from fairseq2.nn import BatchLayout
    from transformers import AutoModelForCTC

    source = make_ssl(tmp_path / "hf", "wav2vec2", "layer", head=True, vocab_size=SIZE, layer_norm_eps=1e-5)
    network = AutoModelForCTC.from_pretrained(source).eval()
    _, config = make_model("large", letters=SIZE)
    write_card(tmp_path / "fairseq", config, True)
    write_dictionary(tmp_path / "fairseq")
    state = as_fairseq(network, "w2v_encoder.w2v_model.")
    torch.save({"model": state, "cfg": {"task": {"normalize": True}}}, tmp_path / "fairseq" / "x.pt")

    own = create_wav2vec2_asr_model(config).eval()
    own.load_state_dict(convert_wav2vec2_asr_state_dict(dict(state), config))
    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    heard = torch.nn.functional.layer_norm(torch.from_numpy(waveform), waveform.shape)[None]
    with torch.inference_mode():
        by_fairseq2 = own(heard, BatchLayout.of(heard))[0][0].log_softmax(-1).numpy()
        by_transformers = network(heard).logits[0].log_softmax(-1).numpy()
    aligner = ready(str(tmp_path / "fairseq"))
    found = aligner.emissions(waveform)[: len(by_fairseq2)]
    for expected in (by_fairseq2, by_transformers):
        np.testing.assert_allclose(np.delete(found, 0, 1), np.delete(expected, 0, 1), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[:, 0], np.logaddexp(expected[:, 0], expected[:, 4]), rtol=1e-4, atol=1e-4)
    assert aligner.tokens("eta") == (5, 6, 7)


def test_the_stage_aligns_with_it(ingested: Dataset, tmp_path: Path) -> None:
    model, _ = make_ctc(tmp_path / "ctc", "base")
    write_dictionary(tmp_path / "ctc")
    transform = Align(AlignParameters(model=model), "cpu")
    assert transform.weight_digests() == LetterAligner(Fairseq2Ctc(model, "cpu")).weight_digests()
    transform.setup()
    rows = joined(window(ingested).slice(0, 3), TRANSCRIPTS, None)
    output = apply(transform, rows)
    assert output.rejects == []
    for source, row in zip(rows.to_pylist(), output.rows.to_pylist(), strict=True):
        assert [item["symbol"] for item in row["items"]] == source["reference_text"].split()
        assert row["status"] == "ok"


def test_its_fingerprint_sees_the_letters(tmp_path: Path) -> None:
    seen = set()
    for name, letters in (("a", LETTERS), ("b", LETTERS[::-1])):
        model, _ = make_ctc(tmp_path / name)
        write_dictionary(tmp_path / name, letters)
        seen.add(Fairseq2Ctc(model, "cpu").weight_digest())
    assert len(seen) == 2
    assert Fairseq2Encoder(str(tmp_path / "a")).weight_digest() == Fairseq2Encoder(str(tmp_path / "b")).weight_digest()


def test_what_is_refused_says_why(tmp_path: Path) -> None:
    model, _ = make_ctc(tmp_path / "a")
    with pytest.raises(ModelError, match=r"must hold exactly one of tokenizer\.model and dict\.ltr\.txt"):
        Fairseq2Ctc(model, "cpu").weight_digest()
    write_dictionary(tmp_path / "a", LETTERS[:-1])
    with pytest.raises(ModelError, match=r"has 31 tokens, but the model has 32"):
        ready(model)
    (tmp_path / "a" / "dict.ltr.txt").write_text("THE 100\n")
    with pytest.raises(ModelError, match="'THE' is not a letter"):
        ready(model)
    write_pieces(tmp_path / "a")
    with pytest.raises(ModelError, match="one of"):
        ready(model)
    (tmp_path / "a" / "dict.ltr.txt").unlink()
    write_pieces(tmp_path / "a", "bpe", 40)
    with pytest.raises(ModelError, match="is not a letter: use a model of characters"):
        ready(model)
    (tmp_path / "a" / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a SentencePiece model"):
        ready(model)
    encoder = save(tmp_path / "b", "base", *make_model("base"))
    with pytest.raises(ModelError, match="not a known checkpoint with a CTC head over letters"):
        Align(AlignParameters(model=encoder)).setup()
