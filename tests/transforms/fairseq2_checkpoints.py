"""Tiny checkpoints of fairseq2, made by its own classes and saved by its own writers; and fairseq's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from echo_targets.transforms.models.checkpoints.fairseq2 import start_fairseq2

KINDS = ("base", "large")
"""Group norm, norms after the blocks, waveforms as they are; or layer norm, norms before the blocks, normalised."""


def encoder_sizes(kind: str, **more: Any) -> dict[str, Any]:
    """A `model_config.encoder_config` of 4 blocks of 40, the sizes of `ssl_checkpoints`."""
    convolutions = [[12, 10, 5], *[[12, 3, 2]] * 4, *[[12, 2, 2]] * 2]
    sizes = {"model_dim": 40, "num_encoder_layers": 4, "num_encoder_attn_heads": 2, "ffn_inner_dim": 72}
    sizes |= {"feature_dim": 12, "feature_extractor_layer_descs": convolutions}
    sizes |= {"pos_conv_kernel_size": 18, "num_pos_conv_groups": 5}
    if kind == "large":
        sizes |= {"feature_extractor_bias": True, "feature_extractor_layer_norm_convs": True}
        sizes |= {"norm_order": "PRE", "layer_norm_features": False}
    return sizes | more


def make_model(kind: str, letters: int | None = None, **more: Any) -> tuple[Any, Any]:
    """A model of fairseq2 with random weights, norms too, in evaluation mode, and its configuration.

    Args:
        letters: of a recognizer; None for wav2vec2 itself.
        more: of the encoder.
    """
    start_fairseq2()
    import torch
    from fairseq2.models.wav2vec2 import Wav2Vec2Config, create_wav2vec2_model
    from fairseq2.models.wav2vec2.asr import Wav2Vec2AsrConfig, create_wav2vec2_asr_model
    from fairseq2.runtime.dependency import get_dependency_resolver
    from fairseq2.utils.structured import ValueConverter

    plain: dict[str, Any] = {"encoder_config": encoder_sizes(kind, **more)}
    plain |= {"target_vocab_size": letters} if letters else {}
    structure = get_dependency_resolver().resolve(ValueConverter).structure
    config = structure(plain, Wav2Vec2AsrConfig if letters else Wav2Vec2Config)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = create_wav2vec2_asr_model(config) if letters else create_wav2vec2_model(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval(), config


def write_card(folder: Path, config: Any, normalize: bool) -> None:
    """`model.yaml` as fairseq2 writes it, and whether waveforms are normalised."""
    from fairseq2.checkpoint import ModelMetadataDumper
    from fairseq2.models.wav2vec2.asr import Wav2Vec2AsrConfig
    from fairseq2.runtime.dependency import get_dependency_resolver

    family = "wav2vec2_asr" if isinstance(config, Wav2Vec2AsrConfig) else "wav2vec2"
    get_dependency_resolver().resolve(ModelMetadataDumper).dump(folder, family, config)
    with (folder / "model.yaml").open("a") as card:
        card.write(f"normalize_audio: {str(normalize).lower()}\n")


def save(folder: Path, kind: str, model: Any, config: Any, form: str = "pt") -> str:
    """Saves a checkpoint; returns its directory.

    Args:
        form: `pt`, `safetensors`, or `shards`: of a training on two ranks.
    """
    import torch
    from safetensors.torch import save_file

    write_card(folder, config, kind == "large")
    if form == "pt":
        torch.save({"model": model.state_dict()}, folder / "model.pt")
    elif form == "safetensors":
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        for number, part in enumerate((list(tensors)[::2], list(tensors)[1::2]), 1):
            save_file({name: tensors[name] for name in part}, folder / f"model-{number}-of-2.safetensors")
    else:
        _save_shards(folder, model)
        return str(folder / "step_500")
    return str(folder)


def _save_shards(folder: Path, model: Any, ranks: int = 2) -> None:
    """By the writer of fairseq2's trainer: a rank's file holds its rows of each tensor, as FSDP shards them."""
    import torch
    from fairseq2.checkpoint import StandardCheckpointManager
    from fairseq2.gang import FakeGang, Gangs
    from fairseq2.runtime.dependency import get_dependency_resolver, wire_object

    class Rank:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def state_dict(self) -> dict[str, Any]:
            return {name: self._rows(each) if each.ndim else each for name, each in model.state_dict().items()}

        def _rows(self, tensor: torch.Tensor) -> torch.Tensor:
            parts = tensor.chunk(ranks)
            return parts[self.rank] if self.rank < len(parts) else tensor[:0]

    cpu = torch.device("cpu")
    one = FakeGang(cpu)
    managers = []
    for rank in range(ranks):
        own = FakeGang(cpu, rank=rank, size=ranks)
        gangs = Gangs(root=own, dp=own, rdp=one, sdp=own, tp=one, pp=one)
        manager = wire_object(
            get_dependency_resolver(),
            StandardCheckpointManager,
            output_dir=folder,
            gangs=gangs,
            checkpoint_dir=folder,
        )
        manager.save_model_only(500, Rank(rank))
        managers.append(manager)
    for manager in reversed(managers):
        manager.maybe_complete_save_operation(blocking=True)


def as_fairseq(model: Any, prefix: str = "") -> dict[str, Any]:
    """A state dict of fairseq's with the weights of a wav2vec2 model of transformers."""
    head = {} if not hasattr(model, "lm_head") else model.lm_head.state_dict(prefix="w2v_encoder.proj.")
    encoder = getattr(model, model.base_model_prefix, model)
    state = {}
    for name, tensor in encoder.state_dict().items():
        for pattern, fairseq in (
            (r"masked_spec_embed", "mask_emb"),
            (r"feature_projection\.layer_norm", "layer_norm"),
            (r"feature_projection\.projection", "post_extract_proj"),
            (r"conv_layers\.(\d+)\.conv", r"conv_layers.\1.0"),
            (r"conv_layers\.(\d+)\.layer_norm", r"conv_layers.\1.2" + ".1" * encoder.config.do_stable_layer_norm),
            (r"pos_conv_embed\.conv", "pos_conv.0"),
            (r"parametrizations\.weight\.original0", "weight_g"),
            (r"parametrizations\.weight\.original1", "weight_v"),
            (r"attention\.", "self_attn."),
            (r"layers\.(\d+)\.layer_norm", r"layers.\1.self_attn_layer_norm"),
            (r"feed_forward\.intermediate_dense", "fc1"),
            (r"feed_forward\.output_dense", "fc2"),
        ):
            name = re.sub(pattern, fairseq, name)
        state[prefix + name] = tensor
    return state | head


def hidden_states(model: Any, waveform: np.ndarray, normalize: bool) -> list[np.ndarray]:
    """What fairseq2's own forward pass gives before and after each block, by its hook; (frames, 40) each."""
    import torch
    from fairseq2.nn import BatchLayout

    heard = torch.from_numpy(waveform)
    if normalize:
        heard = torch.nn.functional.layer_norm(heard, heard.shape)
    states: list[np.ndarray] = []

    def keep(_: int, output: Any, *__: Any) -> bool:
        states.append(output[0].numpy())
        return True

    with torch.inference_mode():
        frames, layout = model.encoder_frontend(heard[None], BatchLayout.of(heard[None]))
        states.append(frames[0].numpy().copy())
        handle = model.encoder.register_layer_hook(keep)
        model.encoder(frames, layout)
        handle.remove()
    return states
