"""Collate functions: batches for EchoX's released trainer, and plain padded ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.models.echox.collate import KDRow, collate_kd, single_codebook
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.whisper.encoder import log_mel
from echo_targets.transforms.segments.rule import Border, SegmentRule, cut_units, cuts_of

if TYPE_CHECKING:
    from torch import Tensor

WINDOW_SAMPLES = 30 * SAMPLE_RATE
BEGIN, HEADER, END_HEADER, NEWLINE, END = 128000, 128006, 128007, 198, 128009
SYSTEM, USER, ASSISTANT = 9125, 882, 78191


def llama3_prompt(system: Sequence[int]) -> list[int | None]:
    """Return the ids of a turn's prompt in Llama 3's format, with None in place of the audio.

    The release's inference code starts each piece of text with `<|begin_of_text|>`. This prompt does not; the template
    `embedded:prompts/echox.json` does.

    Args:
        system: ids of the system prompt.
    """

    def header(role: int) -> list[int | None]:
        return [HEADER, role, END_HEADER, NEWLINE]

    return [BEGIN, *header(SYSTEM), *system, END, *header(USER), None, END, *header(ASSISTANT)]


def collate_echox(
    rows: Sequence[Mapping[str, Any]],
    config: EchoXConfig,
    prompt: Sequence[int | None],
    encode: Callable[[str], Sequence[int]] | None = None,
    mels: int | None = None,
) -> dict[str, Tensor]:
    """Return rows of training/echo as the batch of `finetune_kd` (see `collate_kd`).

    Args:
        rows: rows with `utterance_id`, `user_audio_ids`, `num_codebooks`, `unit_targets`, and `asr_target_ids`,
            `response_token_ids` and `sub_lengths`; or `text`, `response_text` and `segment_char_ends` if `encode` is
            given.
        config: configuration of the model to train: placeholder, header of the units, offset.
        prompt: ids of a turn from any template, with one None or placeholder in place of the audio:
            `llama3_prompt`, `PromptTemplate.ids(tokenizer, [])`, or a rendered chat template.
        encode: encodes a text to ids, without special tokens. Required if the trainer's tokenizer is not the one that
            made the rows. A reply is encoded segment by segment, to keep the segments' borders.
        mels: bands of the log-mel `audios` (B, 1, mels, 3000), computed from `audio`: 80, or 128 for whisper-large-v3;
            None omits them.

    Raises:
        ValueError: a row has earlier turns or several codebooks, its audio is longer than 30 s, or it does not fit the
            config.
    """
    ids = [config.audio_patch_id if each is None else each for each in prompt]
    if ids.count(config.audio_patch_id) != 1:
        raise ValueError(f"the prompt has {ids.count(config.audio_patch_id)} placeholders for audio; expected one")
    place = ids.index(config.audio_patch_id)
    parts = ids[:place], ids[place + 1 :]
    return collate_kd([_kd_row(row, parts, encode, mels) for row in rows], config)


def _kd_row(
    row: Mapping[str, Any],
    prompt: Sequence[Sequence[int]],
    encode: Callable[[str], Sequence[int]] | None,
    mels: int | None,
) -> KDRow:
    if len(row["user_audio_ids"]) != 1:
        raise ValueError(
            f"{row[KEY]} replies to {len(row['user_audio_ids'])} turns, but has only the audio of the last: "
            'load only first turns with filters=[("turn", "==", 0)]'
        )
    if encode is None:
        transcript, reply, lengths = row["asr_target_ids"], row["response_token_ids"], row["sub_lengths"]
    else:
        borders = pairwise([0, *map(int, row["segment_char_ends"])])
        segments = [list(encode(row["response_text"][start:end])) for start, end in borders]
        transcript, reply = encode(row["text"]), [token for segment in segments for token in segment]
        lengths = [len(segment) for segment in segments]
    audios = None if mels is None else [_log_mel(row, mels)]
    return KDRow(
        prompt,
        [_ints(transcript)],
        _ints(reply),
        _ints(lengths),
        [_ints(each) for each in single_codebook(row)],
        audios,
    )


def _ints(values: Sequence[int]) -> list[int]:
    return np.asarray(values, np.int64).tolist()


def _log_mel(row: Mapping[str, Any], mels: int) -> Tensor:
    waveform = decode_flac(row["audio"]["bytes"])
    if len(waveform) > WINDOW_SAMPLES:
        raise ValueError(
            f"{row[KEY]} has {len(waveform) / SAMPLE_RATE:.1f} s of audio, but the encoder's window is 30 s"
        )
    return log_mel(waveform, WINDOW_SAMPLES, mels, "cpu")


def t2c_segments(
    row: Mapping[str, Any], rule: SegmentRule | None = None, offsets: Sequence[tuple[int, int]] | None = None
) -> list[dict[str, Any]]:
    """Cut a row of training/t2c into the segments that echo would make of its text, as far as borders allow.

    Args:
        row: a row with `text`, `units`, `durations` and `borders`.
        rule: the segment rule; None is EchoX's own.
        offsets: character span of each token of the text, from the tokenizer that the rule is meant for; None counts
            characters as tokens.

    Returns:
        `text`, `units` (one list per codebook) and `durations` of each segment; the texts joined are the row's.
    """
    text = row["text"]
    borders = [Border(**border) for border in row["borders"]]
    spans = [(place, place + 1) for place in range(len(text))] if offsets is None else offsets
    cuts = cuts_of(rule or SegmentRule(), text, spans, borders)
    frames = np.stack([np.asarray(units) for units in row["units"]], axis=1)
    pieces = cut_units(frames, row["durations"], [cut.frame for cut in cuts])
    chars = pairwise([0, *(cut.char for cut in cuts), len(text)])
    return [
        {"text": text[start:end], "units": list(units.T), "durations": durations}
        for (start, end), (units, durations) in zip(chars, pieces, strict=True)
    ]


def collate_padded(rows: Sequence[Mapping[str, Any]], names: Sequence[str], padding: int = -100) -> dict[str, Tensor]:
    """Return lists of integers as padded tensors, for a custom trainer.

    Args:
        names: columns to take. Lists of lists (`unit_targets`) are concatenated; a null counts as an empty list.
        padding: value after a row's end.

    Returns:
        For each name: `<name>`, (B, longest) int64; `<name>_lengths`, (B,) int64; and `<name>_mask`, (B, longest) bool,
        True where there is a value.
    """
    import torch

    batch: dict[str, Tensor] = {}
    for name in names:
        values = [_joined(row[name]) for row in rows]
        lengths = np.array([len(each) for each in values], np.int64)
        mask = np.arange(max(lengths, default=0)) < lengths[:, None]
        padded = np.full(mask.shape, padding, np.int64)
        padded[mask] = np.concatenate(values)
        arrays = {name: padded, f"{name}_lengths": lengths, f"{name}_mask": mask}
        batch |= {key: torch.from_numpy(array) for key, array in arrays.items()}
    return batch


def _joined(value: Sequence[Any] | None) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    nested = value is not None and any(isinstance(each, Sequence | np.ndarray) for each in value)
    parts: Sequence[Any] = value if nested else [value or ()]  # type: ignore[assignment]
    return np.concatenate([np.zeros(0, np.int64), *(np.asarray(part, np.int64) for part in parts)])
