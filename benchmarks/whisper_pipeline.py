"""The embedded Whisper as a transformers pipeline, as a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.checkpoints.embedded import WHISPER_TINY_EN
from echo_targets.transforms.models.whisper.encoder import WINDOW_SAMPLES
from echo_targets.transforms.models.whisper.tensor_names import to_transformers
from echo_targets.transforms.models.whisper.weights import EMBEDDED, choose_alignment_heads, load_whisper

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


def asr_pipeline(batch: int) -> Callable[[Sequence[np.ndarray]], list[str]]:
    """Return a function that transcribes waveforms greedily and with timestamps, `batch` at a time."""
    from transformers import WhisperFeatureExtractor, WhisperTokenizerFast, pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    model = embedded_in_transformers()
    file = WHISPER_TINY_EN.locate().parent / "tokenizer.json"
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(file), pad_token="<|endoftext|>")
    hear = pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=tokenizer,
        feature_extractor=WhisperFeatureExtractor(feature_size=model.config.num_mel_bins),
        generate_kwargs={"num_beams": 1},  # the default is five
    )

    def run(waveforms: Sequence[np.ndarray]) -> list[str]:
        inputs: Any = [{"raw": waveform, "sampling_rate": SAMPLE_RATE} for waveform in waveforms]
        is_long = any(len(waveform) > WINDOW_SAMPLES for waveform in waveforms)  # can't be padded to one length
        found = hear(inputs, return_timestamps=True, batch_size=1 if is_long else batch)
        return [said["text"] for said in found]

    return run


def embedded_in_transformers() -> WhisperForConditionalGeneration:
    """Return the embedded Whisper as a transformers model in evaluation mode."""
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
    from whisper.tokenizer import get_tokenizer

    source = load_whisper(EMBEDDED)
    choose_alignment_heads(EMBEDDED, source)
    sizes, special = source.dims, get_tokenizer(multilingual=False)
    ids = {
        "decoder_start_token_id": special.sot,
        "bos_token_id": special.eot,
        "eos_token_id": special.eot,
        "pad_token_id": special.eot,
    }
    config = WhisperConfig(
        vocab_size=sizes.n_vocab,
        num_mel_bins=sizes.n_mels,
        d_model=sizes.n_audio_state,
        encoder_layers=sizes.n_audio_layer,
        encoder_attention_heads=sizes.n_audio_head,
        encoder_ffn_dim=4 * sizes.n_audio_state,
        decoder_layers=sizes.n_text_layer,
        decoder_attention_heads=sizes.n_text_head,
        decoder_ffn_dim=4 * sizes.n_text_state,
        max_source_positions=sizes.n_audio_ctx,
        max_target_positions=sizes.n_text_ctx,
        **ids,
    )
    model = WhisperForConditionalGeneration(config)
    state = {f"model.{to_transformers(name)}": tensor for name, tensor in source.state_dict().items()}
    model.load_state_dict(state | {"proj_out.weight": state["model.decoder.embed_tokens.weight"]})
    model.generation_config = GenerationConfig(
        **ids,
        max_length=sizes.n_text_ctx,
        begin_suppress_tokens=[*special.encode(" "), special.eot],
        suppress_tokens=sorted(
            {*special.non_speech_tokens, special.transcribe, special.translate, special.sot, special.no_speech}
        ),
        no_timestamps_token_id=special.no_timestamps,
        is_multilingual=False,
        return_timestamps=False,
        alignment_heads=source.alignment_heads.indices().T.tolist(),
    )
    return model.eval()
