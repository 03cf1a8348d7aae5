"""VocalNet (SJTU-OmniAgent/VocalNet): a JSON list by split, and a folder with the user's audio.

train.json                       id, speech, conversations, units
audio/train-00000/KEY.flac       the user's turn, 16 kHz mono
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from echo_targets.jobs.export.base import OUT, Wrote
from echo_targets.jobs.export.files import join
from echo_targets.jobs.export.source import Piece
from echo_targets.jobs.export.turns import LeftOut, Row, TurnFormat
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.storage import Storage

SPEECH = "<speech>"


class VocalNet(TurnFormat):
    """Rows as its loader takes them: one turn an item, the units as a list."""

    name: ClassVar[str] = "vocalnet"

    def item(self, row: Row, audio: str, frames: list[int], earlier: list[Row]) -> dict[str, Any]:
        if earlier:
            raise LeftOut("it replies to several turns; an item has one audio and the units of its whole text")
        if SPEECH in row["response_text"]:
            raise LeftOut(f"the reply's text has {SPEECH}, which the loader replaces by the audio")
        turns = [{"from": "human", "value": SPEECH}, {"from": "gpt", "value": row["response_text"]}]
        return {"id": row[KEY], "speech": audio, "conversations": turns, "units": frames}

    def finish(self, out: Storage, done: Sequence[tuple[Piece, Wrote]]) -> list[str]:
        parts = self.parts(done)
        for split, names in parts.items():
            join(out, f"{split}.json", names, between=b",", ends=(b"[\n", b"]\n"))
        return [
            *(f"--data_path {OUT}/{split}.json --speech_folder {OUT}" for split in parts),
            f"unit_vocab_size: {self.tokens.size} in the config of the speech generator ({self.tokens.codebook_id}, "
            f"{self.tokens.frame_rate:g} frames per second)",
            *self.prompt_line("system_message, in omni_speech/datasets/preprocess.py"),
        ]
