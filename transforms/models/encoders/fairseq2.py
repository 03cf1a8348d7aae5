"""Features of fairseq2's wav2vec2 and XLSR layers, for units: 50 frames per second, one utterance at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.fairseq2 import Fairseq2Checkpoint, layer_normed
from echo_targets.transforms.models.encoders.base import Encoder
from echo_targets.transforms.models.encoders.self_supervised import encode_utterance

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class Fairseq2Encoder(Encoder):
    """A checkpoint with a fairseq2 card: wav2vec2, XLSR, or the encoder of a letter recognizer."""

    @staticmethod
    def can_load(model: str) -> bool:
        return Fairseq2Checkpoint(model).exists()

    def weight_digest(self) -> str:
        return Fairseq2Checkpoint(self.model).digest()

    def name(self) -> str:
        """Return a name from the family and the digest of the files, such as `wav2vec2-1a2b3c4d`."""
        return f"{Fairseq2Checkpoint(self.model).family}-{self.weight_digest()[:8]}"

    def features(self, layer: int, device: str) -> Fairseq2Features:
        return Fairseq2Features(self.model, layer, device)


class Fairseq2Features:
    """Output of `layer` blocks (0 is the input of the first), before any norm of the whole encoder."""

    def __init__(self, model: str, layer: int, device: str) -> None:
        checkpoint = Fairseq2Checkpoint(model)
        self._device, self._normalize = device, checkpoint.normalizes
        sizes = checkpoint.config().encoder_config
        if not 0 <= layer <= sizes.num_encoder_layers:
            raise ModelError(
                f"{model} has {sizes.num_encoder_layers} layers, but the codebook needs layer {layer}: use the "
                "codebook's encoder"
            )

        def both() -> Module:
            from fairseq2.models.wav2vec2 import Wav2Vec2EncoderFactory
            from torch.nn import ModuleDict

            factory = Wav2Vec2EncoderFactory(sizes)
            frontend, encoder = factory.create_encoder_frontend(), factory.create_encoder()
            return ModuleDict({"encoder_frontend": frontend, "encoder": encoder})

        network = checkpoint.load(both, sizes)
        self._frontend, self._encoder = network.encoder_frontend.to(device), network.encoder
        # A hook could not stop the encoder early, so its later layers are removed.
        self._encoder.layers = self._encoder.layers[:layer]
        self._encoder.layer_norm = None
        self._encoder.to(device)

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Return features of each waveform (float32, 16 kHz mono): (num_frames, D) float32, 50 frames per second."""
        prepared = (layer_normed(waveform) if self._normalize else waveform for waveform in waveforms)
        return [encode_utterance(self._hidden, waveform, False, self._device) for waveform in prepared]

    def _hidden(self, waveform: Tensor) -> Tensor:
        from fairseq2.nn import BatchLayout

        return self._encoder(*self._frontend(waveform, BatchLayout.of(waveform)))
