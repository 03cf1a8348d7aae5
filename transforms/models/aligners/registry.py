"""CTC checkpoints over letters, by kind."""

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
        language: of the text; a checkpoint of several languages needs it.

    Raises:
        ModelError: the checkpoint is of no known kind.
    """
    for kind in LETTERS:
        if kind.can_load(model):
            return kind(model, device, language)
    raise ModelError(
        f"align.model is {model}: no checkpoint with a CTC head over letters that is known: "
        "transformers has config.json, fairseq2 model.yaml, speechbrain hyperparams.yaml (docs/BACKENDS.md)"
    )
