"""Let an EchoX reply to real speech, the clips of ../shared/speech, in a job that must complete.

python -m benchmarks.quality_speech --model DIR [--limit N]

The clips are outside the domain of a nano model, so the replies are not evaluated, only that the job completes and its
shards pass the checks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import speech_rows
from benchmarks.dialogues import MAX_TOKENS
from echo_targets.jobs.stages import STAGES
from echo_targets.pipeline.job import Job, StageReport
from echo_targets.pipeline.plan import plan
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.stages.ingest import IngestParameters

SHOWN = 5


def run(model: str, root: str, limit: int | None, max_tokens: int = MAX_TOKENS) -> list[StageReport]:
    """Ingest the clips as user turns, each a dialogue of its own, and let the model reply to them."""
    asked = [row | {"dialogue_id": row["id"], "turn": 0, "role": "user"} for row in speech_rows()[:limit]]
    manifest = Path(root, "manifest.jsonl")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in asked))
    sources = [{"kind": "manifest", "corpus": "speech", "manifest": str(manifest)}]
    stages: dict[str, dict[str, Any]] = {
        "ingest": {"sources": sources},
        "echo": {"model": model, "response": "generated", "max_tokens": max_tokens},
    }
    specs = [StageSpec(STAGES[name], parameters) for name, parameters in stages.items()]
    listed = entries(IngestParameters.model_validate(stages["ingest"]).sources)
    with LocalRunner(1) as runner:
        events = list(Job(root, plan(listed, 1.0), specs, 1.0).run(runner))
    return [event for event in events if isinstance(event, StageReport)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="an EchoX checkpoint")
    parser.add_argument("--limit", type=int, help="use only the first N clips")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        reports = run(chosen.model, root, chosen.limit)
        for report in reports:
            print(f"{report.recipe.stage}: {report.rows_in} rows in, {report.rows} out, rejects {dict(report.reasons)}")
        rows = Dataset(root).read("echo_targets").to_pylist()
        reasons = Counter(reason for row in rows for reason in row["t2c"]["stop_reason"])
        units = sum(len(segment) for row in rows for (segment,) in row["t2c"]["units"])
        print(f"{len(rows)} replies, {reasons.total()} segments, {units:,} units; segments ended by {dict(reasons)}")
        print(f"{len(list(check_dataset(root)))} findings of check: the units are valid where there are none")
        heard = {row["utterance_id"]: row["reference_text"] for row in Dataset(root).read("utterances").to_pylist()}
        for row in rows[:SHOWN]:
            print(f"{heard[row['utterance_id']]!r} ► {row['response_text']!r}")


if __name__ == "__main__":
    main()
