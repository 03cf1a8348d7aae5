"""fit-fences on roots of two shards: against numpy over all rows at once, and what is said where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echo_targets.jobs.commands.fit_fences import fit_fences_command, speech_rates
from echo_targets.jobs.config import ConfigError
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.stages.publish.fences import RateFences
from tests.schemas.samples import Root, sample

Said = tuple[str, str, float | None]

said = st.tuples(
    st.sampled_from(["calls", "books"]), st.sampled_from(["en", "de"]), st.none() | st.floats(0, 50, width=16)
)


def root_of(folder: Path, *shards: list[Said]) -> Root:
    """A root of utterances of given corpora, languages and rates; the measures of a shard stand in another order."""
    root, first, utterances, measures = Root(folder), 0, list[Any](), list[Any]()
    for rows in shards:
        numbers = range(first, first := first + len(rows))
        pairs = list(zip(numbers, rows, strict=True))
        utterances.append([sample("utterances", n) | {"corpus": one, "language": two} for n, (one, two, _) in pairs])
        measures.append([sample("measures", n) | {"chars_per_s": speed} for n, (_, _, speed) in reversed(pairs)])
    root.put("utterances", *utterances)
    root.put("measures", *measures)
    return root


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(said, min_size=1, max_size=20), st.lists(said, max_size=20))
def test_rates_of_all_shards_by_corpus_and_language(
    tmp_path_factory: pytest.TempPathFactory, one: list[Said], two: list[Said]
) -> None:
    root = root_of(tmp_path_factory.mktemp("root"), one, two)
    expected: dict[tuple[str, str], list[float]] = {}
    for corpus, language, speed in [*one, *two]:
        if speed is not None:
            expected.setdefault((corpus, language), []).append(speed)
    found = speech_rates(Dataset(str(root.folder)))
    assert {group: sorted(values.tolist()) for group, values in found.items()} == {
        group: sorted(values) for group, values in expected.items()
    }


def test_the_command_writes_the_same_file_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speeds = np.random.default_rng(0).normal(14, 3, 400).round(4).tolist()
    rows: list[Said] = [("calls", "en", speed) for speed in speeds]
    root = root_of(tmp_path / "root", [*rows[:150], ("books", "de", 9.0)], rows[150:])
    for name in ("a.json", "b.json"):
        assert fit_fences_command(str(root.folder), str(tmp_path / "new" / name)) == 0
    assert (tmp_path / "new/a.json").read_bytes() == (tmp_path / "new/b.json").read_bytes()
    books, calls = RateFences.load(tmp_path / "new/a.json").fences
    q1, q3 = np.percentile(np.array(speeds, np.float32).astype(float), [25, 75])
    assert (calls.low, calls.high) == pytest.approx((q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)), abs=1e-4)
    assert (books.count, books.low, books.high, calls.count) == (1, 9.0, 9.0, 400)
    outside = sum(not calls.low <= speed <= calls.high for speed in speeds)
    assert 0 < outside < 20 and f"{outside} ({outside / 400:.2%})" in capsys.readouterr().out


def test_measures_are_joined_to_the_utterances_that_they_are_of(tmp_path: Path) -> None:
    """A source has changed since: the current utterances have a corpus that was never measured."""
    root = root_of(tmp_path, [("calls", "en", 9.0)])
    root.put("utterances", [sample("utterances") | {"corpus": "new"}], variant="new")
    assert list(speech_rates(Dataset(str(tmp_path)))) == [("calls", "en")]


def test_nothing_to_fit_on(tmp_path: Path) -> None:
    Root(tmp_path / "a").put("utterances", [sample("utterances")])
    with pytest.raises(ConfigError, match=r"no table measures\. Run a job with the stage measure first"):
        fit_fences_command(str(tmp_path / "a"), str(tmp_path / "f.json"))
    root_of(tmp_path / "b", [("calls", "en", None)])
    with pytest.raises(ConfigError, match="no utterance has text, so there are no speech rates to fit fences on"):
        fit_fences_command(str(tmp_path / "b"), str(tmp_path / "f.json"))
    assert not (tmp_path / "f.json").exists()
