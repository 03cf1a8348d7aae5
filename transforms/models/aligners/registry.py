"""The list of letter CTC kinds. The kind is chosen from the checkpoint's files."""

from __future__ import annotations

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.fairseq2 import Fairseq2Ctc
from echo_targets.transforms.models.aligners.letters import LetterCtc
from echo_targets.transforms.models.aligners.speechbrain import SpeechbrainCtc
from echo_targets.transforms.models.aligners.wav2vec2 import SslCtc

LETTERS: tuple[type[LetterCtc], ...] = (SpeechbrainCtc, SslCtc, Fairseq2Ctc)


def open_letters(model: str, device: str, language: str) -> LetterCtc:
    """Return the CTC model of a checkpoint, not loaded.

    Args:
        model: the checkpoint's directory or file.
        device: a torch device.
        language: the text's language, which a multilingual checkpoint needs.

    Raises:
        ModelError: the checkpoint is of no supported kind.
    """
    for kind in LETTERS:
        if kind.can_load(model):
            return kind(model, device, language)
    raise ModelError(
        f"align.model is {model}: not a known checkpoint with a CTC head over letters. Expected config.json "
        "(transformers), model.yaml (fairseq2) or hyperparams.yaml (speechbrain); see docs/BACKENDS.md"
    )
