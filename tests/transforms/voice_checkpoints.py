"""Tiny voices of transformers, made by its own classes and saved in its own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz' -"

VITS: dict[str, Any] = {
    "vocab_size": len(LETTERS) + 1,
    "hidden_size": 18,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "window_size": 5,
    "ffn_dim": 26,
    "ffn_kernel_size": 5,
    "flow_size": 22,
    "spectrogram_bins": 33,
    "upsample_initial_channel": 24,
    "upsample_rates": [5, 4, 2],
    "upsample_kernel_sizes": [11, 8, 4],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 2], [1, 3]],
    "depth_separable_num_layers": 2,
    "duration_predictor_flow_bins": 7,
    "duration_predictor_num_flows": 3,
    "duration_predictor_filter_channels": 20,
    "prior_encoder_num_flows": 2,
    "prior_encoder_num_wavenet_layers": 3,
    "posterior_encoder_num_wavenet_layers": 2,
    "speaking_rate": 0.9,
    "noise_scale": 0.6,
    "noise_scale_duration": 0.7,
    "sampling_rate": 22_050,
}
SPEECHT5: dict[str, Any] = {
    "hidden_size": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 28,
    "decoder_layers": 3,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 30,
    "num_mel_bins": 10,
    "speech_decoder_prenet_units": 14,
    "speech_decoder_prenet_dropout": 0.4,
    "speaker_embedding_dim": 12,
    "speech_decoder_postnet_layers": 3,
    "speech_decoder_postnet_units": 16,
    "speech_decoder_postnet_kernel": 3,
    "reduction_factor": 3,
    "max_speech_positions": 90,
    "max_text_positions": 70,
    "conv_dim": (8, 8),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
HIFIGAN: dict[str, Any] = {
    "model_in_dim": 10,
    "sampling_rate": 16_000,
    "upsample_initial_channel": 20,
    "upsample_rates": [4, 5],
    "upsample_kernel_sizes": [8, 11],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 2], [1, 3]],
    "initializer_range": 0.2,
}


def make_vits(folder: Path, tokenizer: dict[str, Any] | None = None, **more: Any) -> Path:
    """Saves a VITS of random weights, whose units of text are letters; returns its directory."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    (folder / "letters.json").write_text(json.dumps({letter: place for place, letter in enumerate("_" + LETTERS)}))
    options = {"phonemize": False, "pad_token": "_", "unk_token": "_"} | (tokenizer or {})
    transformers.VitsTokenizer(str(folder / "letters.json"), **options).save_pretrained(folder)
    (folder / "letters.json").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = transformers.VitsModel(transformers.VitsConfig(**VITS | more)).eval()
    model.save_pretrained(folder)
    return folder


def make_speecht5(folder: Path, speakers: tuple[str, ...] = ("anna.npy",), vocoder: str = "vocoder") -> Path:
    """Saves a SpeechT5 of random weights with x-vectors, and a vocoder in a directory relative to it."""
    import sentencepiece
    import torch
    import transformers
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    text = folder / "text.txt"
    text.write_text("\n".join(f"{first}{second} the quick brown fox" for first in LETTERS for second in LETTERS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spm_char"), model_type="char", vocab_size=33,
        hard_vocab_limit=False, bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    tokenizer = transformers.SpeechT5Tokenizer(str(folder / "spm_char.model"))
    for name in ("text.txt", "spm_char.vocab"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(12)
        config = transformers.SpeechT5Config(vocab_size=len(tokenizer), **SPEECHT5)
        model = transformers.SpeechT5ForTextToSpeech(config).eval()
        torch.nn.init.normal_(model.speech_decoder_postnet.prob_out.weight, std=1.5)
        torch.nn.init.constant_(model.speech_decoder_postnet.prob_out.bias, -4.0)
        torch.nn.init.normal_(model.speech_decoder_postnet.feat_out.weight, std=0.5)
        model.save_pretrained(folder)
        transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**HIFIGAN)).save_pretrained(folder / vocoder)
    for number, name in enumerate(speakers):
        vector = np.random.default_rng(number).normal(size=SPEECHT5["speaker_embedding_dim"]).astype(np.float32)
        if name.endswith(".npy"):
            np.save(folder / name, vector)
        else:
            save_file({"xvector": vector}, folder / name)
    return folder


TEXT_OFFSET, TEXT_PAD, INFER, SEMANTIC, CODES = 52, 110, 111, 40, 16
"""Bark's ids: 40 semantic units, the end at 40, text from 52, then padding and the start of the units."""


def make_bark(folder: Path, speakers: tuple[str, ...] = ("v2/en_speaker_1",), most_units: int = 120) -> Path:
    """Saves a Bark of random weights with EnCodec, presets of speakers, and a tokenizer of letters."""
    import torch
    import transformers
    from transformers.models.bark import generation_configuration_bark as generation

    folder.mkdir(parents=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS[:26], *(f"##{letter}" for letter in LETTERS[:26])]
    (folder / "letters.txt").write_text("\n".join(tokens))
    transformers.BertTokenizerFast(str(folder / "letters.txt")).save_pretrained(folder)
    (folder / "letters.txt").unlink()
    sizes = {"hidden_size": 24, "num_layers": 2, "num_heads": 3, "initializer_range": 0.3}
    config = transformers.BarkConfig(
        semantic_config={**sizes, "input_vocab_size": 112, "output_vocab_size": 48, "block_size": 300},
        coarse_acoustics_config={**sizes, "input_vocab_size": 80, "output_vocab_size": 80, "block_size": 400},
        fine_acoustics_config={
            **sizes, "input_vocab_size": CODES + 1, "output_vocab_size": CODES, "block_size": 64, "n_codes_total": 4,
            "n_codes_given": 1,
        },
        codec_config={
            "model_type": "encodec", "num_filters": 6, "hidden_size": 20, "codebook_dim": 20, "codebook_size": CODES,
            "kernel_size": 5, "target_bandwidths": [1.2],
        },
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(13)
        model = transformers.BarkModel(config).eval()
        for head in (model.semantic.lm_head, model.coarse_acoustics.lm_head):
            torch.nn.init.normal_(head.weight, std=0.3)
        for layer in model.codec_model.quantizer.layers:
            layer.codebook.embed.normal_()
    sampling = generation.BarkGenerationConfig.from_sub_model_configs(
        generation.BarkSemanticGenerationConfig(
            eos_token_id=SEMANTIC, semantic_vocab_size=SEMANTIC, text_encoding_offset=TEXT_OFFSET,
            text_pad_token=TEXT_PAD, semantic_infer_token=INFER, max_input_semantic_length=20,
            max_new_tokens=most_units, do_sample=True,
        ),
        generation.BarkCoarseGenerationConfig(
            coarse_semantic_pad_token=78, coarse_infer_token=79, max_coarse_input_length=24, max_coarse_history=36,
            sliding_window_len=12, do_sample=True,
        ),
        generation.BarkFineGenerationConfig(
            temperature=0.5, max_fine_history_length=32, max_fine_input_length=64, n_fine_codebooks=4
        ),
        codebook_size=CODES,
    )  # fmt: skip
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(sampling.to_dict()))
    presets: dict[str, Any] = {"repo_or_path": "elsewhere"}
    for number, name in enumerate(speakers):
        rng = np.random.default_rng(number)
        shapes = {"semantic_prompt": (30,), "coarse_prompt": (2, 40), "fine_prompt": (4, 40)}
        presets[name] = {prompt: f"speaker_embeddings/{name}_{prompt}.npy" for prompt in shapes}
        for prompt, shape in shapes.items():
            file = folder / presets[name][prompt]
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, rng.integers(0, CODES, shape))
    (folder / "speaker_embeddings_path.json").write_text(json.dumps(presets))
    return folder
