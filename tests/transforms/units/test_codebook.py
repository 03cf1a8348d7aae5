"""Codebooks and runs of units."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.units.codebook import Codebook, collapse, expand, fit_codebook, fit_report

ASSETS = Path(__file__).parents[3] / "transforms" / "assets"
SHIPPED = ASSETS / "codebook-tiny.en-l3-k100.safetensors"


def blobs(seed: int = 0, utterances: int = 12, size: int = 5, width: int = 7) -> list[np.ndarray]:
    """Utterances whose frames lie close to one of `size` far-apart points, on scales that differ by dimension."""
    rng = np.random.default_rng(seed)
    points = np.random.default_rng(99).normal(size=(size, width)) * 10
    scale = np.logspace(-2, 2, width)
    frames = [points[rng.integers(size, size=80)] + rng.normal(size=(80, width)) * 0.1 for _ in range(utterances)]
    return [(utterance * scale + 3).astype(np.float32) for utterance in frames]


def fit(features: list[np.ndarray], size: int = 5, **changes: int) -> tuple[Codebook, dict]:
    return fit_codebook(
        features, **{"size": size, "seed": 0} | changes, encoder="toy", encoder_digest="4f", layer=2, hop_samples=320
    )


@given(st.lists(st.integers(0, 3), max_size=60))
def test_collapse_and_expand_are_inverse(frames: list[int]) -> None:
    units, durations = collapse(np.array(frames, np.int64))
    assert units.dtype == durations.dtype == np.int32
    assert not (units[1:] == units[:-1]).any()
    assert durations.sum() == len(frames) and (durations > 0).all()
    assert expand(units, durations).tolist() == frames


def test_a_run_of_hours_is_one_unit() -> None:
    frames = np.r_[np.full(200_000, 65_535), 40_000]  # over an hour of silence, and a unit beyond 16 bits
    units, durations = collapse(frames)
    assert (units.tolist(), durations.tolist()) == ([65_535, 40_000], [200_000, 1])
    assert np.array_equal(expand(units, durations), frames)


@given(arrays(np.float32, (9, 4), elements=st.floats(-8, 8, width=32)))
def test_quantize_finds_the_nearest_centroid(features: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    centroids, mean, std = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), 4, 4))
    codebook = Codebook("toy", 2, 320, centroids, mean, np.abs(std) + 0.5, "4f")
    units = codebook.quantize(features)
    exact = (features.astype(np.float64) - codebook.mean) / codebook.std
    distances = np.square(exact[:, None] - codebook.centroids[None].astype(np.float64)).sum(axis=-1)
    chosen = distances[np.arange(9), units]
    assert units.dtype == np.int32
    assert (chosen <= distances.min(axis=1) + 1e-3).all()


def test_quantize_refuses_features_it_cannot_place() -> None:
    codebook, _ = fit(blobs())
    with pytest.raises(ValueError, match="of width 7"):
        codebook.quantize(np.zeros((3, 6), np.float32))
    with pytest.raises(ValueError, match="not finite"):
        codebook.quantize(np.full((3, 7), np.nan, np.float32))


def test_fit_recovers_the_clusters_and_reports_them() -> None:
    features = blobs()
    codebook, report = fit(features)
    assert report["frames"] == report["frames_seen"] == 960
    assert report["dead_units"] == 0 and report["inertia"] < 0.1
    assert 2.2 < report["usage_entropy"] <= np.log2(5)
    assert codebook.centroids.tolist() == sorted(codebook.centroids.tolist())


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    features = blobs(size=40)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        codebook, report = fit(features, size=16, seed=seed, max_frames=300)
        codebook.save(tmp_path / name, report)
        assert report["frames"] == 300
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b and a != c
    (tmp_path / "other").touch()
    modes = {(tmp_path / name).stat().st_mode for name in ("a", "other")}
    assert len(modes) == 1, "whoever may read other new files may read it"


def test_units_do_not_depend_on_the_number_of_threads() -> None:
    program = (
        "import numpy as np; from pathlib import Path; from echo_targets.transforms.units.codebook import Codebook;"
        f"codebook = Codebook.load(Path({str(SHIPPED)!r}));"
        "features = np.random.default_rng(0).normal(size=(1500, len(codebook.mean))).astype(np.float32);"
        "import hashlib; print(hashlib.sha256(codebook.quantize(features).tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            cwd=ASSETS.parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    codebook, report = fit(blobs())
    codebook.save(tmp_path / "codebook.safetensors", report)
    loaded = Codebook.load(tmp_path / "codebook.safetensors")
    assert (loaded.digest, loaded.id, loaded.encoder_digest) == (codebook.digest, codebook.id, "4f")
    assert loaded.id == f"toy-l2-k5-{loaded.digest[:8]}"
    assert fit_report(tmp_path / "codebook.safetensors") == report


def test_the_digest_covers_the_meaning_of_a_unit() -> None:
    codebook, _ = fit(blobs())
    arrays = (codebook.centroids, codebook.mean, codebook.std)
    others = [
        Codebook("other", 2, 320, *arrays, "4f"),
        Codebook("toy", 3, 320, *arrays, "4f"),
        Codebook("toy", 2, 640, *arrays, "4f"),
        Codebook("toy", 2, 320, codebook.centroids[::-1], codebook.mean, codebook.std, "4f"),
    ]
    assert len({codebook.digest, *(other.digest for other in others)}) == 5


def test_load_refuses_what_is_damaged_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "codebook.safetensors"
    with pytest.raises(ModelError, match="no such codebook; fit one"):
        Codebook.load(path)
    codebook, report = fit(blobs())
    codebook.save(path, report)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match=r"codebook\.safetensors: not a codebook, or truncated"):
        Codebook.load(path)
    path.write_bytes(whole[:-4] + np.float32(0.5).tobytes())
    with pytest.raises(ModelError, match="were changed after the fit"):
        Codebook.load(path)
    path.write_bytes(whole[:-4] + np.float32(np.inf).tobytes())
    with pytest.raises(ModelError, match="finite"):
        Codebook.load(path)
    path.write_bytes(whole)
    tensors = load_file(path)
    save_file(tensors, path, {"codebook": json.dumps({"format": 99})})
    with pytest.raises(ModelError, match="format 99"):
        Codebook.load(path)


def test_the_shipped_codebook_serves_the_embedded_encoder() -> None:
    codebook = Codebook.load(SHIPPED)
    assert (codebook.encoder, codebook.layer, codebook.hop_samples) == ("whisper-tiny.en", 3, 320)
    assert codebook.encoder_digest == open_encoder("embedded:tiny.en").weight_digest()
    assert codebook.centroids.shape == (100, 384)
    report = fit_report(SHIPPED)
    assert report["dead_units"] == 0 and "CC BY 4.0" in report["real"]
