"""Small checkpoints made by speechbrain's own classes, saved as speechbrain saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIZES = {
    "in_channels": 16,
    "out_channels": 1,
    "resblock_type": "1",
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "resblock_kernel_sizes": [3, 7, 11],
    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 64,
    "upsample_factors": [5, 4, 4, 2, 2],
    "embedding_dim": 16,
    "duration_predictor": True,
    "var_pred_hidden_dim": 12,
    "var_pred_kernel_size": 5,
    "var_pred_dropout": 0.5,
}
"""As recipes/LJSpeech/TTS/vocoder/hifigan_discrete has them, but for numbers of channels and the predictor's kernel."""


def save(path: Path, module: Any) -> None:
    """Writes a module as speechbrain's checkpointer does."""
    from speechbrain.utils.checkpoints import torch_save

    torch_save(module, path)


def make_vocoder(folder: Path, vocab_size: int, **more: Any) -> Path:
    """Saves a unit HiFi-GAN of random weights, with the `hyperparams.yaml` of speechbrain's published ones."""
    import torch
    from speechbrain.lobes.models.HifiGAN import UnitHifiganGenerator

    sizes = {**SIZES, "vocab_size": vocab_size, **more}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        generator = UnitHifiganGenerator(**sizes)
        if sizes["duration_predictor"]:
            torch.nn.init.normal_(generator.var_predictor.proj.weight, std=0.5)
            torch.nn.init.constant_(generator.var_predictor.proj.bias, 1.6)
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "generator.ckpt", generator)
    named = "\n".join(f"{name}: {value!r}" for name, value in sizes.items())
    given = "\n".join(f"    {name}: !ref <{name}>" for name in sizes)
    (folder / "hyperparams.yaml").write_text(
        f"# Model: Unit HiFi-GAN\nsample_rate: 16000\n{named}\n"
        f"generator: !new:speechbrain.lobes.models.HifiGAN.UnitHifiganGenerator\n{given}\n"
        "modules:\n    generator: !ref <generator>\n"
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n"
        "    loadables:\n        generator: !ref <generator>\n"
    )
    return folder


def unit_hifigan(folder: Path) -> Any:
    """speechbrain's `UnitHIFIGAN` of such a folder, made by hand: its reader of YAML fails with ruamel.yaml 0.19."""
    import torch
    import yaml
    from speechbrain.inference.vocoders import UnitHIFIGAN
    from speechbrain.lobes.models.HifiGAN import UnitHifiganGenerator

    sizes = yaml.safe_load((folder / "hyperparams.yaml").read_text().partition("generator:")[0])
    del sizes["sample_rate"]
    generator = UnitHifiganGenerator(**sizes)
    generator.load_state_dict(torch.load(folder / "generator.ckpt", weights_only=True))
    return UnitHIFIGAN(modules={"generator": generator.eval()}, hparams={"generator": generator})


def make_encoder(kind: str, model: str, **more: Any) -> Any:
    """speechbrain's encoder around a directory of transformers, frozen, in evaluation mode."""
    from speechbrain.integrations.huggingface import hubert, wav2vec2, wavlm

    made = {"hubert": hubert.HuBERT, "wav2vec2": wav2vec2.Wav2Vec2, "wavlm": wavlm.WavLM}[kind]
    return made(model, save_path=f"{model}/cache", freeze=True, **more)


def make_ecapa(folder: Path) -> Path:
    """Saves a small ECAPA-TDNN of random weights, with the `hyperparams.yaml` of `spkrec-ecapa-voxceleb`."""
    import torch
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = ECAPA_TDNN(24, channels=[16, 16, 16, 16, 40], attention_channels=6, lin_neurons=11)
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                torch.nn.init.uniform_(buffer, 0.5, 1.5)
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "embedding_model.ckpt", network)
    (folder / "hyperparams.yaml").write_text(
        "# Model: ECAPA big for Speaker verification\nn_mels: 24\nout_n_neurons: 7205\n"
        "compute_features: !new:speechbrain.lobes.features.Fbank\n    n_mels: !ref <n_mels>\n"
        "mean_var_norm: !new:speechbrain.processing.features.InputNormalization\n"
        "    norm_type: sentence\n    std_norm: False\n"
        "embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN\n    input_size: !ref <n_mels>\n"
        "    channels: [16, 16, 16, 16, 40]\n    kernel_sizes: [5, 3, 3, 3, 1]\n    dilations: [1, 2, 3, 4, 1]\n"
        "    groups: [1, 1, 1, 1, 1]\n    attention_channels: 6\n    lin_neurons: 11\n"
        "classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier\n"
        "    input_size: 11\n    out_neurons: !ref <out_n_neurons>\n"
        "modules:\n    compute_features: !ref <compute_features>\n    embedding_model: !ref <embedding_model>\n"
    )
    return folder
