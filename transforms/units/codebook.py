"""Speech units: the nearest of K centroids for every 20 ms of an encoder layer's features, with runs collapsed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from echo_targets.schemas.tables.base import LARGEST_CODEBOOK
from echo_targets.transforms.errors import ModelError

FORMAT = 2
MOST_DISTANCES = 1 << 24
"""Distances that are held at once (64 MiB). All distances of 5 minutes to 65,536 centroids would take 4 GB."""
ARRAYS = ("centroids", "mean", "std")


@dataclass(frozen=True, eq=False)
class Codebook:
    """K-means centroids over standardized features, and the encoder and layer that the features come from.

    Attributes:
        encoder: the encoder's name, such as `whisper-tiny.en`.
        layer: number of the encoder's blocks that are run.
        hop_samples: samples of the 16 kHz signal per frame.
        centroids: (K, D) float32, in standardized space.
        mean, std: (D,) float32, with which features are standardized.
        encoder_digest: of the encoder's weights, as `Encoder.weight_digest` returns it. It is not part of the
            codebook's digest; fingerprints record it separately.
    """

    encoder: str
    layer: int
    hop_samples: int
    centroids: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    encoder_digest: str

    def __post_init__(self) -> None:
        for name in ARRAYS:
            array = getattr(self, name)
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite float32")
        if self.centroids.ndim != 2 or not 0 < self.size <= LARGEST_CODEBOOK:
            raise ValueError(f"centroids must be (K, D) with 1 to {LARGEST_CODEBOOK} rows, not {self.centroids.shape}")
        if self.mean.shape != self.centroids.shape[1:] or self.std.shape != self.mean.shape:
            raise ValueError(f"mean {self.mean.shape} and std {self.std.shape} must be as wide as the centroids")
        if (self.std <= 0).any():
            raise ValueError("std must be positive")

    @property
    def size(self) -> int:
        """K: units are 0 to K - 1."""
        return len(self.centroids)

    @cached_property
    def digest(self) -> str:
        """Return the hex SHA-256 over the arrays, the encoder, the layer and the hop: all that gives a unit meaning."""
        sha = hashlib.sha256(json.dumps([self.encoder, self.layer, self.hop_samples, *self.centroids.shape]).encode())
        for name in ARRAYS:
            sha.update(np.ascontiguousarray(getattr(self, name), "<f4").tobytes())
        return sha.hexdigest()

    @property
    def id(self) -> str:
        """A readable name that is unique to the codebook, such as `whisper-tiny.en-l3-k100-1a2b3c4d`."""
        return f"{self.encoder}-l{self.layer}-k{self.size}-{self.digest[:8]}"

    def quantize(self, features: np.ndarray) -> np.ndarray:
        """Return the nearest centroid of every frame, by Euclidean distance in standardized space.

        Ties go to the lower id.

        Args:
            features: (T, D) float32 of one utterance.

        Returns:
            (T,) int32 in [0, K).

        Raises:
            ValueError: the features are not as wide as the codebook, or not finite.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(
                f"features have shape {features.shape}, but the codebook needs features of width {len(self.mean)}"
            )
        standard = (features.astype(np.float32, copy=False) - self.mean) / self.std
        block = max(1, MOST_DISTANCES // self.size)
        units = [self._nearest(standard[start : start + block]) for start in range(0, len(standard), block)]
        return np.concatenate([np.zeros(0, np.int32), *units])

    def _nearest(self, standard: np.ndarray) -> np.ndarray:
        distances = self._squared_norms - 2 * (standard @ self.centroids.T)
        if not np.isfinite(distances).all():
            raise ValueError("features hold numbers that are not finite")
        return distances.argmin(axis=1).astype(np.int32)

    @cached_property
    def _squared_norms(self) -> np.ndarray:
        return np.square(self.centroids).sum(axis=1)

    def save(self, path: Path, report: dict[str, Any]) -> None:
        """Write a `.safetensors` file: the arrays, and as metadata the fields, the digest and the fit's report."""
        from safetensors.numpy import save

        about = {
            "format": FORMAT,
            "encoder": self.encoder,
            "encoder_digest": self.encoder_digest,
            "layer": self.layer,
            "hop_samples": self.hop_samples,
            "digest": self.digest,
            "report": report,
        }
        # One metadata entry only: safetensors does not keep the order of several, so the file's bytes would vary.
        metadata = {"codebook": json.dumps(about, sort_keys=True)}
        # Not save_file, whose files only their owner may read.
        path.write_bytes(save({name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}, metadata))

    @classmethod
    def load(cls, path: Path) -> Codebook:
        """Load and check a codebook.

        Raises:
            ModelError: the file is missing, is not a codebook, or its arrays do not match its digest.
        """
        about, arrays = _read(path)
        try:
            codebook = cls(
                about["encoder"], about["layer"], about["hop_samples"], **arrays, encoder_digest=about["encoder_digest"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: not a usable codebook ({error}); fit it again") from error
        if codebook.digest != about.get("digest"):
            raise ModelError(f"{path}: the centroids were changed after the fit; restore the file or fit it again")
        return codebook


def fit_report(path: Path) -> dict[str, Any]:
    """Return the report that `fit_codebook` made with the file.

    Raises:
        ModelError: as `Codebook.load`.
    """
    return dict(_read(path)[0].get("report", {}))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            about = json.loads((file.metadata() or {})["codebook"])
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such codebook; fit one with `echo-targets fit-codebook`") from error
    except (KeyError, OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: not a codebook, or truncated ({error}); fit it again") from error
    if about.get("format") != FORMAT:
        raise ModelError(f"{path}: codebook format {about.get('format')}; this version loads {FORMAT}; fit it again")
    return about, arrays


def collapse(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collapse runs of equal frames to one unit with a duration.

    Args:
        units: (T,) integers, one per frame; or (T, Q), one per frame and codebook.

    Returns:
        (N,) or (N, Q) int32 without equal neighbors, and (N,) int32 durations in frames.
    """
    frames = np.asarray(units, np.int32)
    if not len(frames):
        return frames, np.zeros(0, np.int32)
    differs = frames[1:] != frames[:-1]
    starts = np.flatnonzero(np.r_[True, differs.any(axis=1) if frames.ndim == 2 else differs])
    return frames[starts], np.diff(starts, append=len(frames)).astype(np.int32)


def expand(units: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """Invert `collapse`: expand (N,) or (N, Q) units and their durations to (T,) or (T, Q) int32 frames."""
    return np.repeat(np.asarray(units, np.int32), durations, axis=0)


def fit_codebook(
    features: Iterable[np.ndarray],
    *,
    size: int,
    encoder: str,
    encoder_digest: str,
    layer: int,
    hop_samples: int,
    seed: int,
    max_frames: int = 200_000,
) -> tuple[Codebook, dict[str, Any]]:
    """Cluster frames with MiniBatchKMeans (Sculley 2010, scikit-learn). The same frames and seed give the same bytes.

    Args:
        features: (T, D) float32, one array per utterance. Iterated once; at most `max_frames` frames are kept.
        size: K.
        encoder, encoder_digest, layer, hop_samples: where the features come from, as in `Codebook`.
        seed: seed of the sample of frames and of the clustering.

    Returns:
        The codebook, its centroids in lexicographic order, and a report: frames, inertia (mean squared distance per
        frame), usage_entropy (bits; log2 K if all units are used equally often), dead_units (number of units that no
        frame is assigned to), and unused_units (which units).

    Raises:
        ValueError: fewer frames than centroids, or frames that are not finite.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    seen, frames = _sample(features, max_frames, np.random.default_rng(seed))
    if len(frames) < size:
        raise ValueError(f"{len(frames)} frames are too few for {size} units")
    if not np.isfinite(frames).all():
        raise ValueError("features hold numbers that are not finite")
    mean = frames.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = np.maximum(frames.std(axis=0, dtype=np.float64), 1e-6).astype(np.float32)
    standard = (frames - mean) / std
    kmeans = MiniBatchKMeans(size, random_state=seed, batch_size=8192, n_init=3, max_iter=100, max_no_improvement=20)
    with threadpool_limits(1):  # several threads would add numbers in another order
        centroids = kmeans.fit(standard).cluster_centers_.astype(np.float32)
    codebook = Codebook(
        encoder, layer, hop_samples, centroids[np.lexsort(centroids.T[::-1])], mean, std, encoder_digest
    )
    units = codebook.quantize(frames)
    usage = np.bincount(units, minlength=size) / len(units)
    used = usage[usage > 0]
    unused = np.flatnonzero(usage == 0).tolist()
    report = {
        "frames_seen": seen,
        "frames": len(frames),
        "seed": seed,
        "inertia": round(float(np.square(standard - codebook.centroids[units]).sum(axis=1).mean()), 4),
        "usage_entropy": round(float(-(used * np.log2(used)).sum()), 4),
        "dead_units": len(unused),
        "unused_units": unused,
    }
    return codebook, report


def _sample(features: Iterable[np.ndarray], count: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    # Every frame draws a random ticket and the lowest are kept: a uniform sample from a stream of unknown length.
    seen, kept, tickets = 0, [], np.zeros(0)
    for utterance in features:
        seen += len(utterance)
        kept.append(np.asarray(utterance, np.float32))
        tickets = np.r_[tickets, rng.random(len(utterance))]
        if len(tickets) > 2 * count:
            kept, tickets = _lowest(kept, tickets, count)
    kept, tickets = _lowest(kept, tickets, count)
    return seen, kept[0]


def _lowest(kept: list[np.ndarray], tickets: np.ndarray, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    frames = np.concatenate(kept) if kept else np.zeros((0, 1), np.float32)
    chosen = np.sort(np.argsort(tickets, kind="stable")[:count])
    return [frames[chosen]], tickets[chosen]


def check_units(rows: Iterable[Sequence[int] | np.ndarray], codebook_size: int) -> None:
    """Check that all units are in a codebook.

    Raises:
        ValueError: one is not.
    """
    for row in rows:
        if len(row) and not 0 <= min(row) <= max(row) < codebook_size:
            raise ValueError(f"units {min(row)} to {max(row)} are not all in [0, {codebook_size})")
