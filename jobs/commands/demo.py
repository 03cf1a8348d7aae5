"""`echo-targets demo`: run every stage on twenty dialogues of the embedded voice and a few broken files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from echo_targets.jobs.commands.run import job_of, run_job
from echo_targets.jobs.commands.status import show_rejects
from echo_targets.jobs.config import load
from echo_targets.jobs.escapes import markup, one_line
from echo_targets.jobs.screen import open_console
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.units.language import UnitLanguage

DIALOGUES = Path(__file__).parents[1] / "corpora" / "demo_dialogues.jsonl"
SHOWN_WORDS = 12


def demo_command(
    root: Annotated[str, typer.Option(help="Folder to write to.")] = "out/demo",
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
) -> int:
    """Synthesize twenty dialogues, add a few broken files, and run every stage on them.

    Example: echo-targets demo --root out/demo --workers 4
    """
    console = open_console()
    corpus = Path(root) / "corpus"
    write_corpus(corpus)
    settings = load("demo", [f"corpus={corpus}", f"root={root}", f"workers={workers}"])
    if code := run_job(settings, job_of(settings), console):
        return code
    findings = list(check_dataset(root))
    for finding in findings:
        console.print(one_line(finding), style="red", markup=False)
    dataset = Dataset(root)
    console.print("\n[bold]Rejects[/] and their reasons")
    show_rejects(dataset, console)
    unit_language = settings.stages["echo"]["unit_language"]
    _show_target(dataset, UnitLanguage.load(asset(unit_language)), console)
    _show_replies(dataset, console)
    console.print(f"\nChecked: {len(findings)} findings. For details: echo-targets status {root}", markup=False)
    return 1 if findings else 0


def write_corpus(folder: Path) -> None:
    """Write the dialogues' texts and a manifest of files that are broken in common ways."""
    import soundfile

    broken = folder / "broken"
    broken.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DIALOGUES, folder / "dialogues.jsonl")
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    (broken / "empty.wav").write_bytes(b"")
    (broken / "notes.wav").write_text("These are meeting notes, not audio.\n")
    soundfile.write(broken / "whole.flac", noise, SAMPLE_RATE)
    whole = (broken / "whole.flac").read_bytes()
    (broken / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    (broken / "whole.flac").unlink()
    soundfile.write(broken / "nan.wav", np.where(noise > 0.3, np.nan, noise), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(broken / "silence.wav", np.zeros_like(noise), SAMPLE_RATE)
    soundfile.write(broken / "click.wav", noise[:800], SAMPLE_RATE)
    names = ("empty.wav", "notes.wav", "truncated.flac", "nan.wav", "silence.wav", "click.wav", "lost.wav")
    lines = [json.dumps({"id": Path(name).stem, "audio": f"broken/{name}"}) for name in names]
    lines += ["this line is not JSON", json.dumps({"id": "empty", "audio": "broken/empty.wav"})]
    (folder / "broken.jsonl").write_text("\n".join(lines) + "\n")


def _show_target(dataset: Dataset, language: UnitLanguage, console: Console) -> None:
    rows = dataset.read("training/echo").to_pylist()
    if not rows:
        return
    row = rows[0]
    console.print(f"\n[bold]A sample target[/], {markup(row['utterance_id'])}: [italic]{markup(row['text'])}[/]")
    start = 0
    for end, words in zip(row["segment_char_ends"], row["unit_target_words"], strict=True):
        spelled = language.words(words)
        target = " ".join(spelled[:SHOWN_WORDS]) + (f" … ({len(spelled)} words)" if len(spelled) > SHOWN_WORDS else "")
        console.print(f"  {one_line(row['response_text'][start:end].strip())} ► {target}", markup=False, soft_wrap=True)
        start = end
    if row["unit_error_rate"] is not None:
        console.print(f"  unit error rate against the recorded reply: {row['unit_error_rate']:.1%}")
    if row["target_cer"] is not None:
        console.print(f"  character error rate of the units, read back as text: {row['target_cer']:.1%}")


def _show_replies(dataset: Dataset, console: Console) -> None:
    turns = dataset.read("utterances", ["dialogue_id", "turn", "reference_text"]).to_pylist()
    written = {(row["dialogue_id"], row["turn"]): row["reference_text"] for row in turns}
    rows = dataset.read("echo_targets", ["dialogue_id", "turn", "response_text"]).to_pylist()
    same = sum(row["response_text"] == written[row["dialogue_id"], row["turn"] + 1] for row in rows)
    console.print(f"\n{same} of {len(rows)} replies, generated from the questions' audio only, match the written ones.")
