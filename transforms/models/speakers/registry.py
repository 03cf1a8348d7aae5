"""The list of speaker encoders. The kind is chosen from the checkpoint's files."""

from __future__ import annotations

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.speakers.base import SpeakerEncoder
from echo_targets.transforms.models.speakers.ecapa import EcapaEncoder
from echo_targets.transforms.models.speakers.resemblyzer import ResemblyzerEncoder

KINDS: tuple[type[SpeakerEncoder], ...] = (ResemblyzerEncoder, EcapaEncoder)


def open_speaker_encoder(model: str) -> SpeakerEncoder:
    """Return the speaker encoder of a checkpoint, not loaded.

    Args:
        model: `embedded:resemblyzer`, or a directory of speechbrain with an ECAPA-TDNN.

    Raises:
        ModelError: it is neither.
    """
    kind = next((kind for kind in KINDS if kind.can_load(model)), None)
    if kind is None:
        raise ModelError(
            f"{model}: not a speaker encoder; expected embedded:resemblyzer, or a speechbrain directory with "
            "hyperparams.yaml and embedding_model.ckpt"
        )
    return kind(model)
