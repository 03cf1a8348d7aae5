"""The list of voices. The kind of a checkpoint is chosen from its config.json."""

from __future__ import annotations

from pathlib import Path

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json
from echo_targets.transforms.models.voices.bark import BarkVoice
from echo_targets.transforms.models.voices.base import Voice
from echo_targets.transforms.models.voices.checkpoint import CheckpointVoice
from echo_targets.transforms.models.voices.hibari import HibariVoice
from echo_targets.transforms.models.voices.speecht5 import SpeechT5Voice
from echo_targets.transforms.models.voices.vits import VitsVoice

EMBEDDED = "embedded:hibari"
KINDS: dict[str, type[CheckpointVoice]] = {"vits": VitsVoice, "speecht5": SpeechT5Voice, "bark": BarkVoice}
"""By `model_type` in config.json."""


def open_voice(name: str = EMBEDDED, device: str = "cpu") -> Voice:
    """Return a voice, not loaded.

    Args:
        name: `embedded:hibari`, or a transformers directory with VITS (MMS-TTS), SpeechT5 or Bark.
        device: a torch device. The embedded voice runs on the CPU.

    Raises:
        ModelError: there is no such voice, or files are missing or damaged.
    """
    if name == EMBEDDED:
        return HibariVoice()
    if name.startswith("embedded:"):
        raise ModelError(f"{name}: the embedded voice is {EMBEDDED}")
    path = Path(name)
    if not path.is_dir():
        raise ModelError(f"{name} is not a directory; name one with VITS, SpeechT5 or Bark, or {EMBEDDED}")
    kind = read_json(path / "config.json").get("model_type")
    if kind not in KINDS:
        raise ModelError(f"{path / 'config.json'}: model_type is {kind!r}; voices are {', '.join(KINDS)}")
    return KINDS[kind](path, device)
