"""Fixtures that every test may use, and what the last lines of a run say."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.speech import folder, recorded, rows

# Where a shell starts pytest in the background, Ctrl-C is ignored, and every process that a test starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: it starves beside the other test processes

settings.register_profile("here", deadline=None)  # no test depends on how fast it runs
settings.load_profile("here")


STARTS_RAY = {
    "tests/jobs/test_growth.py",
    "tests/jobs/test_runners.py",
    "tests/jobs/test_sick_devices.py",
    "tests/pipeline/runners/test_ray.py",
}
"""Files whose tests start Ray: one after the other, since two clusters on two cores take four times as long as one."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one process, and all files that start Ray to the same."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "starts Ray" if file in STARTS_RAY else file

    return ByFile(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--made-speech", action="store_true", help="use the embedded voice even where recordings exist")


def pytest_collection_finish() -> None:
    """Exempt what is imported by now from garbage collection.

    Each stage of a job ends with a collection, which takes half a second in a process that has imported everything.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Hypothesis asks every module for its file, and some of speechbrain's are imported, or fail, as they are asked."""
    for module in [module for name, module in sys.modules.items() if name.startswith("speechbrain.")]:
        vars(module).setdefault("__file__", None)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # its lines come after pytest's own summary, just above the closing line
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Say on the last lines which speech the tests had, and what was skipped and why."""
    yield
    made = config.getoption("--made-speech") or not recorded()
    terminalreporter.write_line(f"speech: {'made by the embedded voice' if made else 'recorded'}")
    terminalreporter.write_line(skips(terminalreporter.stats.get("skipped", [])))


def skips(reports: list[Any]) -> str:
    """Return how many tests and whole files were skipped, counted by reason, on one line."""
    reasons = Counter(
        (
            "test" if isinstance(report, pytest.TestReport) else f"all of {report.nodeid}",
            report.longrepr[2].removeprefix("Skipped: "),
        )
        for report in reports
    )
    why = "; ".join(f"{count} x {what} ({reason})" for (what, reason), count in reasons.most_common())
    return f"{len(reports)} skipped: {why}" if reports else "0 skipped"


@pytest.fixture(scope="session")
def speech(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Rows of the speech's manifest, with `audio` as an absolute path: 16 kHz mono FLAC with its text."""
    return rows(folder(made=request.config.getoption("--made-speech")))
