"""Whisper checkpoints of transformers, made by its own classes and saved in its own format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_targets.transforms.models.checkpoints.embedded import WHISPER_TINY_EN
from echo_targets.transforms.models.whisper.settings import Settings
from echo_targets.transforms.models.whisper.weights import VOCABULARIES
from tests.transforms.bin_files import as_bin

if TYPE_CHECKING:
    from whisper.tokenizer import Tokenizer


def make_whisper(folder: Path, vocab_size: int = 51864, safe: bool = True, shard: str = "5GB", **more: Any) -> str:
    """Save a Whisper with random weights (3 and 2 blocks, width 32) and its JSON files; return the directory.

    Args:
        safe: as safetensors, or as `pytorch_model.bin`.
        shard: the largest file.
    """
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    shape = {"d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
    shape |= {"encoder_attention_heads": 4, "decoder_attention_heads": 8}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        ids = special_ids(vocab_size)
        model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=vocab_size, **(ids | shape | more)))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # far enough from zero for attention that is not flat
    model.generation_config._from_model_config = False  # otherwise transformers regenerates it when it loads the file
    vars(model.generation_config).update(alignment_heads=[[0, 1], [1, 0]], **decoding(vocab_size))
    WhisperFeatureExtractor(model.config.num_mel_bins).save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=safe, max_shard_size=shard)
    if not safe:
        as_bin(Path(folder))
    write_vocabulary(folder, VOCABULARIES[vocab_size])
    return str(folder)


def tokenizer_of(vocab_size: int) -> Tokenizer:
    """openai-whisper's tokenizer of a vocabulary."""
    from whisper.tokenizer import get_tokenizer

    return get_tokenizer(vocab_size > 51864, num_languages=vocab_size - 51765 - (vocab_size > 51864))


def special_ids(vocab_size: int) -> dict[str, int]:
    """Keys of config.json as OpenAI's checkpoints on the hub have them."""
    tokenizer = tokenizer_of(vocab_size)
    ends = {f"{name}_token_id": tokenizer.eot for name in ("bos", "eos", "pad")}
    return ends | {"decoder_start_token_id": tokenizer.sot}


def decoding(vocab_size: int) -> dict[str, Any]:
    """Keys of generation_config.json as OpenAI's checkpoints on the hub have them."""
    tokenizer = tokenizer_of(vocab_size)
    found: dict[str, Any] = {
        "begin_suppress_tokens": [220, tokenizer.eot],
        "suppress_tokens": Settings().never_decoded(tokenizer),
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "max_initial_timestamp_index": 50,
        "is_multilingual": vocab_size > 51864,
        "return_timestamps": False,
    }
    if not found["is_multilingual"]:
        return found | {"forced_decoder_ids": [[1, tokenizer.no_timestamps]]}
    languages = zip(tokenizer.all_language_codes, tokenizer.all_language_tokens, strict=True)
    return found | {
        "forced_decoder_ids": [[1, None], [2, tokenizer.transcribe]],
        "lang_to_id": {f"<|{name}|>": token for name, token in languages},
        "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
    }


def write_vocabulary(folder: Path, name: str) -> None:
    """Writes `vocab.json`: the tokens of openai-whisper, as transformers spells their bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    from whisper.tokenizer import get_encoding

    encoding, letters = get_encoding(name), bytes_to_unicode()
    tokens = [encoding.decode_single_token_bytes(id) for id in range(encoding.eot_token)]
    vocabulary = {"".join(letters[byte] for byte in token): id for id, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))


def write_tokenizer(folder: Path, name: str) -> None:
    """Writes `tokenizer.json` with openai-whisper's tokens and special tokens, which spells, but does not merge."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from whisper.tokenizer import get_encoding

    encoding = get_encoding(name)
    write_vocabulary(folder, name)
    tokenizer = Tokenizer(models.BPE(vocab=json.loads((folder / "vocab.json").read_text()), merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [encoding.decode([id]) for id in range(encoding.eot_token, encoding.n_vocab)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))


def export_embedded(folder: Path) -> str:
    """Saves the embedded Whisper as transformers does, in half precision as it came; returns the directory."""
    from transformers import WhisperFeatureExtractor

    from benchmarks.whisper_pipeline import embedded_in_transformers

    embedded_in_transformers().half().save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    shutil.copy(WHISPER_TINY_EN.locate().parent / "tokenizer.json", folder)
    return str(folder)
