"""SLAM-Omni (X-LANCE/SLAM-LLM, examples/s2s): JSON lines by split, and a folder with the user's audio.

train.jsonl                      key, source_wav, source_text, target_token, target_text
audio/train-00000/KEY.flac       the user's turn, 16 kHz mono
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from echo_targets.jobs.export.base import OUT, Wrote
from echo_targets.jobs.export.files import join
from echo_targets.jobs.export.names import safe_name
from echo_targets.jobs.export.source import Piece
from echo_targets.jobs.export.turns import LeftOut, Row, TurnFormat
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.storage import Storage

MARK = "<USER>:"
SPECIAL_TOKENS = 64
"""Entries that the trainer's vocabulary has after those of the codebook."""


class SlamOmni(TurnFormat):
    """Rows as its loader takes them with `manifest_format=jsonl`.

    The loader takes what is before the last `<USER>:` of a text for the history. As in the released data and in its
    prompts at inference, the turns of a history begin with `USER:` and `ASSISTANT:`.
    """

    name: ClassVar[str] = "slam-omni"

    def item(self, row: Row, audio: str, frames: list[int], earlier: list[Row]) -> dict[str, Any]:
        if MARK in row["text"]:
            raise LeftOut(f"the text has {MARK}, which marks the end of the history")
        history = "".join(
            f"USER: {turn['text'].strip()} ASSISTANT: {turn['response_text'].strip()} " for turn in earlier
        )
        text = f"{history}{MARK} {row['text'].strip()}" if earlier else row["text"]
        return {
            "key": safe_name(row[KEY]),  # the trainer names its files after the key
            "source_wav": audio,
            "source_text": text,
            "target_token": frames,
            "target_text": row["response_text"],
        }

    def finish(self, out: Storage, done: Sequence[tuple[Piece, Wrote]]) -> list[str]:
        parts = self.parts(done)
        for split, names in parts.items():
            join(out, f"{split}.jsonl", names)
        size = self.tokens.size
        return [
            *(f"In {OUT}: train_data_path={split}.jsonl manifest_format=jsonl code_type=CosyVoice" for split in parts),
            f"vocab_config.audio_vocabsize={size} vocab_config.total_audio_vocabsize={size + SPECIAL_TOKENS} "
            f"({self.tokens.codebook_id}, {self.tokens.frame_rate:g} frames per second)",
            *self.prompt_line("dataset_config.prompt, in conf/prompt.yaml"),
        ]
