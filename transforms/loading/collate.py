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
    prompt: Sequence[int | None] | Callable[[str | None], Sequence[int | None]],
    encode: Callable[[str], Sequence[int]] | None = None,
    mels: int | None = None,
) -> dict[str, Tensor]:
    """Return rows of training/echo as the batch of `finetune_kd` (see `collate_kd`).

    Args:
        rows: rows with `utterance_id`, `user_audio_ids`, `system_text`, `num_codebooks`, `unit_targets`, and
            `asr_target_ids`, `response_token_ids` and `sub_lengths`; or `text`, `response_text` and
            `segment_char_ends` if `encode` is given.
        config: configuration of the model to train: placeholder, header of the units, offset.
        prompt: ids of a turn from any template, with one None or placeholder in place of the audio:
            `llama3_prompt`, `PromptTemplate.ids(tokenizer, [])`, or a rendered chat template. If dialogues have
            system texts, a function that returns these ids for a row's `system_text`, which may be None.
        encode: encodes a text to ids, without special tokens. Required if the trainer's tokenizer is not the one that
            made the rows. A reply is encoded segment by segment, to keep the segments' borders.
        mels: bands of the log-mel `audios` (B, 1, mels, 3000), computed from `audio`: 80, or 128 for whisper-large-v3;
            None omits them.

    Raises:
        ValueError: a row has earlier turns or several codebooks, its audio is longer than 30 s, it has a system text
            and `prompt` is the same for all, or it does not fit the config.
    """
    return collate_kd([_kd_row(row, _parts(row, prompt, config), encode, mels) for row in rows], config)


def _parts(
    row: Mapping[str, Any],
    prompt: Sequence[int | None] | Callable[[str | None], Sequence[int | None]],
    config: EchoXConfig,
) -> tuple[Sequence[int], Sequence[int]]:
    """Return a row's prompt before and after the placeholder for the audio."""
    system = row["system_text"]
    if system is not None and not callable(prompt):
        raise ValueError(
            f"{row[KEY]} has the system text {system!r}, but the prompt is the same for all rows: pass a function of a "
            "row's system text, such as lambda text: template.ids(tokenizer, [], text)"
        )
    given = prompt(system) if callable(prompt) else prompt
    ids = [config.audio_patch_id if each is None else each for each in given]
    if ids.count(config.audio_patch_id) != 1:
        raise ValueError(f"the prompt has {ids.count(config.audio_patch_id)} placeholders for audio; expected one")
    place = ids.index(config.audio_patch_id)
    return ids[:place], ids[place + 1 :]


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


def collate_units(
    rows: Sequence[Mapping[str, Any]], frames: bool = True, delays: Sequence[int] = (), padding: int = -100
) -> dict[str, Tensor]:
    """Return units of all codebooks as a padded tensor, for trainers of codec language models.

    Args:
        rows: rows of training/echo, training/t2c or units.
        frames: repeat each unit as often as its duration says; False keeps collapsed units.
        delays: frames by which each codebook is delayed: `range(4)` is the pattern of MusicGen (arXiv 2306.05284),
            `(0, 1, 1, 1)` that of Moshi (arXiv 2410.00037). Empty for none.
        padding: value before a delayed codebook's start and after its end.

    Returns:
        `units` (B, Q, T) int64, where T is the longest row plus the longest delay; `units_mask` (B, Q, T) bool, True
        where there is a unit; `units_lengths` (B,) int64 without delays; and for rows of training/echo
        `segment_lengths` (B, S) int64, the units of each segment, padded with 0.

    Raises:
        ValueError: durations are not known, rows have different numbers of codebooks, or `delays` has another number.
    """
    import torch

    read = [[_segment(*each, frames, row) for each in _segments(row)] for row in rows]
    wholes = [np.concatenate(segments, axis=1) for segments in read]
    codebooks = {len(whole) for whole in wholes}
    if len(codebooks) > 1:
        raise ValueError(
            f"the rows have {', '.join(map(str, sorted(codebooks)))} codebooks; one batch needs one number"
        )
    shifts = list(delays) or [0] * max(codebooks, default=0)
    if len(shifts) != max(codebooks, default=0) or min(shifts, default=0) < 0:
        raise ValueError(f"delays are {shifts}; name one number of frames, from 0, for each of {codebooks} codebooks")
    lengths = np.array([whole.shape[1] for whole in wholes], np.int64)
    size = (len(rows), len(shifts), int(max(lengths, default=0)) + max(shifts, default=0))
    units, mask = np.full(size, padding, np.int64), np.zeros(size, bool)
    for row, whole in enumerate(wholes):
        for codebook, shift in enumerate(shifts):
            place = slice(shift, shift + whole.shape[1])
            units[row, codebook, place], mask[row, codebook, place] = whole[codebook], True
    batch = {"units": units, "units_mask": mask, "units_lengths": lengths}
    if rows and "unit_targets" in rows[0]:
        segments = np.zeros((len(rows), max(map(len, read))), np.int64)
        for row, parts in enumerate(read):
            segments[row, : len(parts)] = [part.shape[1] for part in parts]
        batch["segment_lengths"] = segments
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def _segments(row: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return units and durations of each segment; a row without segments is one."""
    if "unit_targets" not in row:
        return [(row["units"], row.get("durations"))]
    durations = row.get("unit_durations")
    return [(units, None if durations is None else durations[at]) for at, units in enumerate(row["unit_targets"])]


def _segment(units: Any, durations: Any, frames: bool, row: Mapping[str, Any]) -> np.ndarray:
    """Return a segment's units or frames, (Q, T) int64."""
    stacked = np.stack([np.asarray(codebook, np.int64) for codebook in units])
    if not frames:
        return stacked
    if durations is None:
        raise ValueError(
            f"{row[KEY]} has units without durations, so its frames are not known: load their column too, publish a "
            "target that has durations (stages.publish_echo.target=recorded or voice), or pass frames=False"
        )
    return np.repeat(stacked, np.asarray(durations, np.int64), axis=1)


def collate_padded(rows: Sequence[Mapping[str, Any]], names: Sequence[str], padding: int = -100) -> dict[str, Tensor]:
    """Return lists of integers as padded tensors, for a custom trainer.

    Args:
        names: columns to take. A null counts as an empty list.
        padding: value after a row's end.

    Returns:
        For each name: `<name>`, (B, longest) int64; `<name>_lengths`, (B,) int64; and `<name>_mask`, (B, longest) bool,
        True where there is a value.

    Raises:
        ValueError: a column has lists of lists, such as units by codebook; `collate_units` takes these.
    """
    import torch

    batch: dict[str, Tensor] = {}
    for name in names:
        values = [_flat(row[name], name) for row in rows]
        lengths = np.array([len(each) for each in values], np.int64)
        mask = np.arange(max(lengths, default=0)) < lengths[:, None]
        padded = np.full(mask.shape, padding, np.int64)
        padded[mask] = np.concatenate(values)
        arrays = {name: padded, f"{name}_lengths": lengths, f"{name}_mask": mask}
        batch |= {key: torch.from_numpy(array) for key, array in arrays.items()}
    return batch


def _flat(value: Sequence[Any] | None, name: str) -> np.ndarray:
    if value is not None and any(isinstance(each, Sequence | np.ndarray) for each in value):
        raise ValueError(f"{name} has lists of lists: use collate_units for units")
    return np.asarray(() if value is None else value, np.int64)
