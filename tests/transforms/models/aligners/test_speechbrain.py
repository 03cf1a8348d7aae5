"""Alignment with speechbrain's EncoderASR: the emissions of its own modules, and what its YAML can't do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from echo_targets.schemas import TRANSCRIPTS
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import joined
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.letters import LetterAligner
from echo_targets.transforms.models.aligners.speechbrain import SpeechbrainCtc
from echo_targets.transforms.stages.align import Align, AlignParameters
from tests.transforms.rows import apply, window
from tests.transforms.speechbrain_checkpoints import make_encoder, save
from tests.transforms.ssl_checkpoints import SIZE, make_ssl

NEURONS = 24
TEXTS = ["THE QUICK BROWN FOX", "JUMPS OVER A LAZY DOG'S BACK"]
HYPERPARAMS = """
# Model: wav2vec2 + DNN + CTC
seed: 1986
sample_rate: 16000
wav2vec2_hub: facebook/wav2vec2-large-960h-lv60-self
wav2vec2_folder: !ref <save_folder>/wav2vec2_checkpoint
save_folder: !PLACEHOLDER
activation: !name:torch.nn.LeakyReLU
    negative_slope: 2e-1
wav2vec_output_dim: {size}
dnn_layers: 2
dnn_neurons: {neurons}
output_neurons: {outputs}
blank_index: 0
tokenizer: !new:speechbrain.dataio.encoder.CTCTextEncoder
enc: {enc}
{encoder}: !new:speechbrain.integrations.huggingface.wav2vec2.Wav2Vec2
    source: !ref <wav2vec2_hub>
    output_norm: {output_norm}
    freeze: True
    save_path: !ref <wav2vec2_folder>
ctc_lin: !new:speechbrain.nnet.linear.Linear
    input_size: !ref <dnn_neurons>
    n_neurons: !ref <output_neurons>
log_softmax: !new:speechbrain.nnet.activations.Softmax
    apply_log: True
"""
HUB = """asr_model: !new:torch.nn.ModuleList
    - [!ref <enc>, !ref <ctc_lin>]
encoder: !new:speechbrain.nnet.containers.LengthsCapableSequential
    {encoder}: !ref <{encoder}>
    enc: !ref <enc>
    ctc_lin: !ref <ctc_lin>
    log_softmax: !ref <log_softmax>
decoding_function: !name:speechbrain.decoders.ctc_greedy_decode
    blank_id: !ref <blank_index>
modules:
    encoder: !ref <encoder>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        {encoder}: !ref <{encoder}>
        asr: !ref <asr_model>
        tokenizer: !ref <tokenizer>
"""
TRAINING = """
__set_seed: !!python/object/apply:torch.manual_seed [!ref <seed>]
speed_perturb: !new:speechbrain.augment.time_domain.SpeedPerturb
    orig_freq: !ref <sample_rate>
modules:
    wav2vec2: !ref <wav2vec2>
    enc: !ref <enc>
    ctc_lin: !ref <ctc_lin>
    speed_perturb: !ref <speed_perturb>
model: !new:torch.nn.ModuleList
    - [!ref <enc>, !ref <ctc_lin>]
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: !ref <save_folder>
    recoverables:
        wav2vec2: !ref <wav2vec2>
        model: !ref <model>
        tokenizer: !ref <tokenizer>
"""
"""What a recipe has where a hub's file has `HUB`."""
VANILLA = """!new:speechbrain.lobes.models.VanillaNN.VanillaNN
    input_shape: [null, null, !ref <wav2vec_output_dim>]
    activation: !ref <activation>
    dnn_blocks: !ref <dnn_layers>
    dnn_neurons: !ref <dnn_neurons>"""
SEQUENTIAL = """!new:speechbrain.nnet.containers.Sequential
    input_shape: [null, null, !ref <wav2vec_output_dim>]
    linear1: !name:speechbrain.nnet.linear.Linear
        n_neurons: !ref <dnn_neurons>
        bias: True
    bn1: !name:speechbrain.nnet.normalization.BatchNorm1d
    activation: !new:torch.nn.LeakyReLU
    drop: !new:torch.nn.Dropout
        p: 0.15
    linear2: !name:speechbrain.nnet.linear.Linear
        n_neurons: !ref <dnn_neurons>
        bias: True
    bn2: !name:speechbrain.nnet.normalization.BatchNorm1d
    activation2: !new:torch.nn.LeakyReLU
    drop2: !new:torch.nn.Dropout
        p: 0.15"""


DOUBLED = "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
MERGED = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))


def sequential() -> Any:
    """What speechbrain makes of `SEQUENTIAL`."""
    from functools import partial

    from speechbrain.nnet.containers import Sequential
    from speechbrain.nnet.linear import Linear
    from speechbrain.nnet.normalization import BatchNorm1d

    made = Sequential(
        input_shape=[None, None, SIZE],
        linear1=partial(Linear, n_neurons=NEURONS, bias=True),
        bn1=BatchNorm1d,
        activation=torch.nn.LeakyReLU(),
        drop=torch.nn.Dropout(0.15),
        linear2=partial(Linear, n_neurons=NEURONS, bias=True),
        bn2=BatchNorm1d,
        activation2=torch.nn.LeakyReLU(),
        drop2=torch.nn.Dropout(0.15),
    )
    made(torch.randn(4, 50, SIZE))  # so that the norms have seen something
    return made


def vanilla() -> Any:
    from functools import partial

    from speechbrain.lobes.models.VanillaNN import VanillaNN

    return VanillaNN([None, None, SIZE], partial(torch.nn.LeakyReLU, negative_slope=0.2), 2, NEURONS)


def labels(path: Path) -> dict[str, int]:
    """As recipes/LibriSpeech/ASR/CTC writes them."""
    from speechbrain.dataio.encoder import CTCTextEncoder

    encoder = CTCTextEncoder()
    encoder.insert_blank(index=0)
    encoder.update_from_iterable(TEXTS)
    encoder.save(path)
    return dict(encoder.lab2ind)


def pieces(path: Path, **more: Any) -> dict[str, int]:
    """As recipes/CommonVoice/ASR/CTC trains them: SentencePiece's characters."""
    import io

    import sentencepiece

    model = io.BytesIO()
    options = {"vocab_size": 30, "model_type": "char", "bos_id": -1, "eos_id": -1, "hard_vocab_limit": False, **more}
    trainer = sentencepiece.SentencePieceTrainer
    trainer.train(sentence_iterator=iter(TEXTS * 20), model_writer=model, minloglevel=2, **options)
    path.write_bytes(model.getvalue())
    read = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return {read.IdToPiece(number): number for number in range(read.GetPieceSize())}


def make_asr(folder: Path, kind: str = "wav2vec2", norm: str = "layer", simple: bool = True, text: bool = True) -> Any:
    """Saves a small EncoderASR of random weights; returns speechbrain's modules and the vocabulary."""
    from speechbrain.nnet.activations import Softmax
    from speechbrain.nnet.containers import LengthsCapableSequential
    from speechbrain.nnet.linear import Linear

    start = make_ssl(folder / "start", kind, norm)
    vocabulary = (labels if text else pieces)(folder / "tokenizer.ckpt")
    encoder = make_encoder(kind, start, output_norm=simple)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(folder / "start" / name, folder / name)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        enc, linear = vanilla() if simple else sequential(), Linear(len(vocabulary), input_size=NEURONS)
    save(folder / f"{kind}.ckpt", encoder)
    save(folder / "asr.ckpt", torch.nn.ModuleList([enc, linear]))
    (folder / "hyperparams.yaml").write_text(
        (HYPERPARAMS + HUB).format(
            size=SIZE,
            neurons=NEURONS,
            outputs=len(vocabulary),
            enc=VANILLA if simple else SEQUENTIAL,
            encoder=kind,
            output_norm=simple,
        )
    )
    whole = LengthsCapableSequential(wav2vec2=encoder, enc=enc, ctc_lin=linear, log_softmax=Softmax(apply_log=True))
    return whole.eval(), vocabulary


def as_trained(folder: Path) -> None:
    """Turns a hub's directory into one of a training, with `hyperparams.yaml` as speechbrain's trainer writes it."""
    from hyperpyyaml import resolve_references

    path = folder / "hyperparams.yaml"
    recipe = path.read_text()[: path.read_text().index("asr_model:")] + TRAINING
    resolved = resolve_references(recipe, {"save_folder": "results/1986/save"}).getvalue()
    path.write_text(f"# Generated 2024-05-06 from:\n# /recipes/hparams/train.yaml\n# yamllint disable\n{resolved}")
    (folder / "asr.ckpt").rename(folder / "model.ckpt")


def opened(folder: Path) -> LetterAligner:
    aligner = LetterAligner(SpeechbrainCtc(str(folder), "cpu"))
    aligner.setup()
    return aligner


@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize(
    ("kind", "norm", "simple", "text", "trained"),
    [
        ("wav2vec2", "layer", True, True, False),
        ("wav2vec2", "layer", False, False, False),
        ("wav2vec2", "group", True, True, True),
        ("wav2vec2", "layer", False, False, True),
        ("hubert", "group", False, True, False),
        ("wavlm", "layer", True, False, False),
    ],
)
def test_emissions_are_those_of_speechbrain(
    tmp_path: Path, speech: list[dict[str, Any]], kind: str, norm: str, simple: bool, text: bool, trained: bool
) -> None:
    modules, vocabulary = make_asr(tmp_path, kind, norm, simple, text)
    if trained:
        as_trained(tmp_path)
        assert "*id001" in (tmp_path / "hyperparams.yaml").read_text()
    waveform, _ = soundfile.read(speech[0]["audio"], dtype="float32")
    with torch.inference_mode():
        expected = modules(torch.from_numpy(waveform)[None], torch.ones(1))[0].numpy()
    aligner = opened(tmp_path)
    found, border = aligner.emissions(waveform)[: len(expected)], vocabulary[" " if text else "▁"]
    np.testing.assert_allclose(np.delete(found, 0, 1), np.delete(expected, 0, 1), rtol=1e-3, atol=1e-4)
    both = np.logaddexp(expected[:, 0], expected[:, border])
    np.testing.assert_allclose(found[:, 0], both, rtol=1e-3, atol=1e-4)
    assert aligner.tokens("Dog's") == tuple(vocabulary[letter] for letter in "DOG'S")
    assert aligner.tokens("1998") is None and aligner.tokens("_") is None


def test_the_stage_aligns_with_it(ingested: Dataset, tmp_path: Path) -> None:
    make_asr(tmp_path / "a")
    transform = Align(AlignParameters(model=str(tmp_path / "a")), "cpu")
    before = transform.weight_digests()
    transform.setup()
    rows = joined(window(ingested).slice(0, 3), TRANSCRIPTS, None)
    output = apply(transform, rows)
    assert output.rejects == []
    for source, row in zip(rows.to_pylist(), output.rows.to_pylist(), strict=True):
        assert [item["symbol"] for item in row["items"]] == source["reference_text"].split()
        assert row["status"] == "ok"
    moved = (tmp_path / "a").rename(tmp_path / "b")
    assert Align(AlignParameters(model=str(moved)), "cpu").weight_digests() == before
    for name in ("hyperparams.yaml", "asr.ckpt", "tokenizer.ckpt", "wav2vec2.ckpt"):
        whole = (moved / name).read_bytes()
        (moved / name).write_bytes(whole + b"\n")
        fresh = (tmp_path / name).absolute()
        shutil.copytree(moved, fresh)
        assert Align(AlignParameters(model=str(fresh)), "cpu").weight_digests() != before
        (moved / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("!name:torch.nn.LeakyReLU", "!name:os.mkdir", r"`!name:os\.mkdir` is not supported; supported are"),
        ("!name:torch.nn.LeakyReLU", "!apply:torch.nn.LeakyReLU", r"is not supported; supported are"),
        ("!name:torch.nn.LeakyReLU", "!name:torch.nn.RReLU\n    inplace: True", r"RReLU` is not supported"),
        ("VanillaNN.VanillaNN", "CRDNN.CRDNN", "supported: VanillaNN or Sequential"),
        ("dnn_layers: 2", "dnn_layers: 3", r"asr\.ckpt: .*missing 0\.linear_1\.w"),
        ("dnn_layers: 2", "dnn_layers: 1000000", "dnn_blocks is 1000000; it must be 1 to 64"),
        ("blank_index: 0", "blank_index: 400", r"<blank> is 0, but blank_index of hyperparams\.yaml is 400"),
        ("dnn_layers: 2", "dnn_layers: two", "dnn_blocks is 'two'"),
        ("input_shape: [null, null, !ref <wav2vec_output_dim>]", "input_shape: 32", "wrong arguments"),
        ("    freeze: True", "    output_all_hiddens: True", "only its last layer is supported"),
        ("ctc_lin: !new", "ctc: !new", "has no `ctc_lin: !new:`"),
        ("blank_index: 0", "blank_index: two", "blank_index is 'two'"),
        ("    freeze: True", "    layerwise_sum: True", "`wav2vec2` has layerwise_sum, which is not supported"),
        ("    output_norm: True", "    output_norm: 1e-2", "does not say whether its output is normalized"),
        (
            "    enc: !ref <enc>\n    ctc_lin",
            "    downsampler: !new:speechbrain.lobes.downsampling.PoolingDownsampler\n    enc: !ref <enc>\n    ctc_lin",
            r"`downsampler` \(speechbrain\.lobes\.downsampling\.PoolingDownsampler\) is not a supported part",
        ),
        ("seed: 1986", "seed: &a [*a]", "an alias contains itself"),
        ("seed: 1986", "a0: &a0 [x, x]\n" + DOUBLED, "its aliases expand to more than 1,000,000 characters"),
        ("seed: 1986", "a0: &a0 {x: 1}\n" + MERGED, "its aliases expand to more than 1,000,000 characters"),
    ],
)
def test_what_is_refused_says_why(tmp_path: Path, old: str, new: str, why: str) -> None:
    make_asr(tmp_path)
    path = tmp_path / "hyperparams.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ModelError, match=why):
        opened(tmp_path)


def test_an_old_class_whose_output_may_be_normalized_or_not(tmp_path: Path) -> None:
    make_asr(tmp_path)
    path = tmp_path / "hyperparams.yaml"
    new, old = "integrations.huggingface.wav2vec2.Wav2Vec2", "lobes.models.huggingface_wav2vec.HuggingFaceWav2Vec2"
    path.write_text(path.read_text().replace(new, old))
    opened(tmp_path)
    path.write_text(path.read_text().replace("    output_norm: True\n", ""))
    with pytest.raises(ModelError, match=r"versions of speechbrain differ: write `output_norm: true` or"):
        opened(tmp_path)


def test_a_model_whose_frames_are_longer_is_refused(tmp_path: Path) -> None:
    make_asr(tmp_path)
    path = tmp_path / "config.json"
    about = json.loads(path.read_text()) | {"add_adapter": True, "num_adapter_layers": 1}
    path.write_text(json.dumps(about))
    with pytest.raises(ModelError, match=r"wav2vec2\.ckpt: .*missing adapter"):
        opened(tmp_path)


def test_directories_that_are_not_whole_or_not_of_letters(tmp_path: Path) -> None:
    make_asr(tmp_path)
    ctc = SpeechbrainCtc(str(tmp_path), "cpu")
    pieces(tmp_path / "tokenizer.ckpt", model_type="bpe", vocab_size=40)
    with pytest.raises(
        ModelError, match=r"tokenizer\.ckpt: .* is not a letter, but a piece of a word or a sound; to align"
    ):
        ctc.setup()
    (tmp_path / "tokenizer.ckpt").write_bytes(b"\x80nonsense" * 20)
    with pytest.raises(ModelError, match="neither labels nor a SentencePiece model"):
        ctc.setup()
    (tmp_path / "tokenizer.ckpt").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.ckpt or label_encoder\.txt"):
        ctc.weight_digest()
    (tmp_path / "wav2vec2.ckpt").unlink()
    with pytest.raises(ModelError, match="use wav2vec2, HuBERT or WavLM"):
        ctc.setup()
    assert not SpeechbrainCtc.can_load(make_ssl(tmp_path / "other", "hubert", head=True))
