"""`echo-targets run`: a configuration becomes a job."""

from __future__ import annotations

from rich.console import Console

from jobs.card import write_card
from jobs.config import JobConfig, Workplace, load
from jobs.screen import Screen, funnel, open_console
from pipeline.job import Job, JobFailed
from pipeline.plan import Plan, plan
from transforms.ingest import IngestParameters
from transforms.sources import entries

FAILED = 3
STOPPED = 130


def run_command(config: str, overrides: list[str], dry_run: bool) -> int:
    """Runs, or with `dry_run` says what would run; gives the exit code."""
    console = open_console()
    settings = load(config, overrides)
    job = job_of(settings)
    if dry_run:
        say_plan(job, console)
        return 0
    return run_job(settings, job, console)


def job_of(settings: JobConfig) -> Job:
    """The job that a configuration asks for; lists its sources.

    Raises:
        SourceError: a source can't be listed.
    """
    sources = IngestParameters.model_validate(settings.stages["ingest"]).sources
    planned = plan(entries(sources), settings.shard_hours)
    return Job(settings.root, planned, settings.specs(), settings.max_reject_fraction, settings.when_busy)


def run_job(workplace: Workplace, job: Job, console: Console) -> int:
    """Runs a job to its end, or to its failure, and prints the funnel."""
    code = 0
    with Screen(console) as screen:
        try:
            with workplace.open_runner() as runner:
                for event in job.run(runner):
                    screen.show(event)
        except JobFailed as failure:
            console.print(str(failure), style="red", markup=False)
            code = failure.exit_code
        except OSError as error:  # of the driver's own files; those of shards are theirs
            console.print(
                f"{job.root}: {error}; what is committed stays, run the same command again", style="red", markup=False
            )
            code = FAILED
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on from here")
            code = STOPPED
    console.print(funnel(screen.reports))
    if code == 0:
        console.print(f"Shards are in {job.root}, described by {write_card(job.root)}", markup=False)
    return code


def say_plan(job: Job, console: Console) -> None:
    """Prints what a run would do, and why."""
    planned = job.plan
    assert isinstance(planned, Plan)
    console.print(
        f"{planned.num_entries} items ({planned.num_bad} of them unreadable lines), "
        f"about {planned.seconds / 3600:.2f} hours, "
        f"in {planned.info.shards} shards, to {job.root}",
        markup=False,
    )
    for table in job.foresee():
        info, left = table.info, table.info.shards - table.committed
        what = f"{left} of {info.shards} shards to run" if left else "nothing to do"
        console.print(f"{info.stage}: {info.table}/{info.fingerprint}: {what}", markup=False)
        for reason in table.why:
            console.print(f"  {reason}", markup=False)
