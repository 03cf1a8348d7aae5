"""Similarities of voices against a plain computation, and files of similarities that are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from echo_targets.transforms.stages.publish.stage import PublishS2T, S2TParameters
from echo_targets.transforms.stages.publish.voices import SimilaritiesError, SpeakerSimilarities
from tests.schemas.samples import key
from tests.transforms.stages.test_publish import dropped


def unit(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(0.3, 1, (count, 7))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_each_utterance_is_compared_with_the_others() -> None:
    few, four = unit(0, 2), unit(1, 4)
    keys = ["d", "b", "a", 'c "x",\ny']
    found = SpeakerSimilarities.fit({("calls", "ann"): (["y", "z"], few), ("calls", "bob"): (keys, four)})
    for place, name in enumerate(keys):
        others = np.delete(four, place, axis=0).sum(axis=0)
        expected = four[place] @ others / np.linalg.norm(others)
        assert found.of(pa.array([name]))[0].as_py() == pytest.approx(expected, abs=6e-5)
    assert found.of(pa.array(["y", "none"])).to_pylist() == [None, None]


def test_the_odd_voice_is_the_least_similar() -> None:
    vectors = unit(2, 1) + 0.1 * unit(3, 6)
    vectors[4] = -vectors[4]
    found = SpeakerSimilarities.fit({("c", "s"): (list("abcdef"), vectors / np.linalg.norm(vectors, axis=1)[:, None])})
    similarities = found.of(pa.array(list("abcdef"))).to_numpy()
    assert similarities[4] < -0.9 and np.delete(similarities, 4).min() > 0.9


def test_a_saved_file_is_read_as_it_was(tmp_path: Path) -> None:
    found = SpeakerSimilarities.fit({("c", "s"): (['a "b"', "NA", "1,5\n2"], unit(4, 3))})
    for name in "ab":
        found.save(tmp_path / name)
    assert SpeakerSimilarities.load(tmp_path / "a").rows.equals(found.rows) and len(found.rows) == 3
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_below_the_threshold_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    file.write_text(f"utterance_id,speaker_similarity\n{key(0)},0.71\n{key(2)},0.69\n{key(3)},0.7\n")
    given = S2TParameters(speaker_similarities=str(file), min_speaker_similarity=0.7)
    reason = ("filtered_speaker_similarity", "speaker_similarity 0.69 is below min_speaker_similarity=0.7")
    assert dropped(PublishS2T(given), {}, {}, {}, {}) == [None, None, reason, None]
    assert dropped(PublishS2T(S2TParameters(speaker_similarities=str(file))), {}, {}, {}) == [None] * 3
    assert PublishS2T(given).weight_digests().keys() == {"speaker_similarities"}
    assert "speaker_similarities" not in PublishS2T(given).fingerprint_parameters()


def test_a_threshold_without_a_file_would_do_nothing() -> None:
    with pytest.raises(ValidationError, match="min_speaker_similarity needs speaker_similarities, a file of"):
        S2TParameters(min_speaker_similarity=0.7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file or directory"),
        ("", "not a file of similarities"),
        ("utterance_id,similarity\na,0.5\n", "not a file of similarities"),
        ("utterance_id,speaker_similarity\na,high\n", "not a file of similarities"),
        ("utterance_id,speaker_similarity\na\n", "not a file of similarities"),
        ("utterance_id,speaker_similarity\na,1.5\n", "a speaker_similarity is not in [-1, 1]"),
        ("utterance_id,speaker_similarity\na,nan\n", "a speaker_similarity is not in [-1, 1]"),
    ],
)
def test_a_damaged_file_is_refused(text: str | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SimilaritiesError) as refused:
        PublishS2T(S2TParameters(speaker_similarities=str(file))).weight_digests()
    assert says in str(refused.value) and str(file) in str(refused.value)
    assert str(refused.value).endswith("; make one with `echo-targets fit-speakers`")
