"""The fitting and training commands on a few spoken sentences: same data and seed, same file; a model that loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from echo_targets.jobs.commands.fit_codebook import fit_codebook_command
from echo_targets.jobs.commands.fit_unit_language import Mode, fit_unit_language_command
from echo_targets.jobs.commands.train_echo import train_echo_command
from echo_targets.jobs.commands.train_reader import train_reader_command
from echo_targets.jobs.commands.train_s2t import train_s2t_command
from echo_targets.jobs.commands.train_t2c import train_t2c_command
from echo_targets.jobs.config import ConfigError
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.assets import asset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.t2c.model import T2C
from echo_targets.transforms.segments.rule import CLAUSE_END, SegmentRule
from echo_targets.transforms.units.codebook import Codebook, fit_report
from echo_targets.transforms.units.language import UnitLanguage
from tests.schemas.samples import Root, sample
from tests.transforms.released_echox import write_released
from tests.transforms.rows import run_stages

TEXTS = ["The cat sat down.", "It rains today.", "Seven and one are eight.", "Good morning.", "I like warm bread."]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("fit")
    rows = [
        {"id": f"s{place}", "role": "assistant", "text": text, "split": "test" if place == 4 else "train"}
        for place, text in enumerate(TEXTS)
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"kind": "spoken", "corpus": "s", "texts": str(folder / "t.jsonl")}
    stages = {"ingest": {"sources": [source]}, "tokenize": {}, "publish_t2c": {}}
    return run_stages(folder / "root", stages)[0]


def test_the_same_codebook_for_the_same_seed(dataset: Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        file = str(tmp_path / f"{name}.safetensors")
        assert fit_codebook_command(dataset.root, file, 16, 2, "embedded:tiny.en", seed, 1000) == 0
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    book = Codebook.load(tmp_path / "a.safetensors")
    assert (book.size, book.layer, book.encoder) == (16, 2, "whisper-tiny.en")
    assert fit_report(tmp_path / "a.safetensors")["dead_units"] == 0


def test_a_fitted_codebook_gives_new_units_beside_the_old(dataset: Dataset, tmp_path: Path) -> None:
    file = str(tmp_path / "k8.safetensors")
    fit_codebook_command(dataset.root, file, 8, 3, "embedded:tiny.en", 0, 1000)
    before = dataset.tables()["units"]
    texts = Path(dataset.root).parent / "t.jsonl"
    ingest = {"sources": [{"kind": "spoken", "corpus": "s", "texts": str(texts)}]}
    run_stages(Path(dataset.root), {"ingest": ingest, "tokenize": {"codebook": file}})
    try:
        assert dataset.tables()["units"] != before
        assert max(unit for row in dataset.read("units").to_pylist() for unit in row["units"][0]) < 8
        assert (Path(dataset.root) / "units" / before.recipe / "recipe.json").is_file()
    finally:
        run_stages(Path(dataset.root), {"ingest": ingest, "tokenize": {}})
    assert dataset.tables()["units"] == before


def test_too_little_data_is_said_before_the_work(dataset: Dataset, tmp_path: Path) -> None:
    out, before = str(tmp_path / "few"), dataset.tables()
    with pytest.raises(UserError, match=r"frames of 20 ms.* can't be clustered into 30000 units\. Use more speech"):
        fit_codebook_command(dataset.root, out, 30_000, 2, "embedded:tiny.en", 0, 200_000)
    with pytest.raises(UserError, match=r"100 frames of 20 ms.* can't be clustered into 120 units"):
        fit_codebook_command(dataset.root, out, 120, 2, "embedded:tiny.en", 0, 100)
    with pytest.raises(UserError, match=r"units can't yield 999900 words in addition to the 100 single units"):
        fit_unit_language_command(dataset.root, out, 1_000_000, 4)
    with pytest.raises(UserError, match="is less than the 100 single units"):
        fit_unit_language_command(dataset.root, out, 50, 4)
    assert dataset.tables() == before and not Path(out).exists()


def test_units_that_nothing_uses_are_named(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit_unit_language_command(dataset.root, str(tmp_path / "w"), 150, 4) == 0
    used = {unit for row in dataset.read("units").to_pylist() for unit in row["units"][0]}
    unused = sorted(set(range(100)) - used)
    assert unused and f"{len(unused)} of 100 units ({unused[0]}, " in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["ngram", "bpe"])
def test_the_same_unit_language_each_time(dataset: Dataset, tmp_path: Path, mode: str) -> None:
    for name in ("a", "b"):
        assert fit_unit_language_command(dataset.root, str(tmp_path / name), 150, 4, Mode(mode)) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    language = UnitLanguage.load(tmp_path / "a")
    for row in dataset.read("units").to_pylist():
        assert language.decode(language.encode(row["units"][0])) == row["units"][0]


def test_train_t2c_makes_a_model_that_echo_takes(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["model.hidden_size=32", "model.text_embedding_size=32", "model.num_layers=1", "model.ffn_size=64"]
    recipe = ["recipe.steps=3", "recipe.decay_steps=1", "recipe.warmup_steps=1", "recipe.bfloat16=false"]
    out = tmp_path / "model"
    assert train_t2c_command(dataset.root, str(out), [*sizes, *recipe]) == 0
    assert "run the stage align" in " ".join(capsys.readouterr().out.split())
    report = json.loads((out / "report.json").read_text())
    assert (report["rows"], report["held_out_rows"]) == (4, 1)
    assert report["held_out_unit_error_rate"] > 0
    shipped = T2C.load(asset("embedded:nano-t2c"))
    trained = T2C.load(out)
    same = ("prefix_ids", "middle_ids", "end_id", "text_vocab_size", "unit_vocab_size")
    assert all(getattr(trained.config, name) == getattr(shipped.config, name) for name in same)
    further, still = str(tmp_path / "further"), "recipe.learning_rate=0"
    assert train_t2c_command(dataset.root, further, [*sizes, *recipe, still, f"start={out}"]) == 0
    assert Path(further, "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_train_reader_makes_a_model_that_echo_takes(dataset: Dataset, tmp_path: Path) -> None:
    from echo_targets.transforms.stages.echo.parameters import EchoParameters
    from echo_targets.transforms.stages.echo.stage import Echo

    sizes = ["model.hidden_size=32", "model.num_layers=1", "model.ffn_size=64"]
    recipe = ["recipe.steps=3", "recipe.decay_steps=1", "recipe.warmup_steps=1", "recipe.bfloat16=false"]
    out = tmp_path / "reader"
    assert train_reader_command(dataset.root, str(out), [*sizes, *recipe]) == 0
    report = json.loads((out / "report.json").read_text())
    assert (report["rows"], report["held_out_rows"]) == (4, 1)
    assert report["held_out_character_error_rate"] > 0
    echo = Echo(EchoParameters(reader=str(out)))
    assert echo.weight_digests()["reader"] != Echo(EchoParameters()).weight_digests().get("reader")
    echo.setup()


DIALOGUES = [("What is one and one?", "Two."), ("Is it day?", "Yes, it is."), ("Who is there?", "The cat.")]
SHORT = ["recipe.steps=3", "recipe.decay_steps=1", "recipe.warmup_steps=1"]
SMALL = [
    *("model.hidden_size=32", "model.intermediate_size=48", "model.num_hidden_layers=1", "vocab_size=300"),
    *("model.unit_model.hidden_size=32", "model.unit_model.num_layers=1", "model.unit_model.ffn_size=48"),
    "model.unit_model.max_units_per_text_token=2",
]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Matrices this small only wait for each other's threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_three_stages_make_an_echox(tmp_path: Path) -> None:
    turns = [
        {"id": f"d{place}-{turn}", "dialogue_id": f"d{place}", "turn": turn, "role": role, "text": text, "split": split}
        for place, (split, dialogue) in enumerate(zip(("train", "train", "test"), DIALOGUES, strict=True))
        for turn, (role, text) in enumerate(zip(("user", "assistant"), dialogue, strict=True))
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, turns)))
    ingest = {"sources": [{"kind": "spoken", "corpus": "s", "texts": str(tmp_path / "t.jsonl")}]}
    speech: dict[str, dict] = {"ingest": ingest, "tokenize": {}}
    published = {"publish_s2t": {"roles": ["user"]}, "publish_t2c": {"roles": ["assistant"]}}
    root = str(tmp_path / "root")
    run_stages(tmp_path / "root", speech | published)

    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    assert train_s2t_command(root, one, [*SMALL, *SHORT, "recipe.text_steps=1"]) == 0
    assert train_t2c_command(root, two, SHORT, language_model=one) == 0
    with pytest.raises(ConfigError, match=r"no table training/echo\. Run a job with the stage publish_echo"):
        train_echo_command(root, two, three, SHORT)
    lenient = {"min_mean_logprob": None, "stop_reasons": ["end", "length", "repetition"]}
    run_stages(tmp_path / "root", speech | {"echo": {"model": two, "max_units": 20}, "publish_echo": lenient})
    assert train_echo_command(root, two, three, SHORT) == 0
    for folder, held_out in ((one, "held_out_exact_replies"), (two, "held_out_unit_error_rate")):
        report = json.loads((Path(folder) / "report.json").read_text())
        assert (report["rows"], report["held_out_rows"]) == (2, 1) and held_out in report
    report = json.loads((Path(three) / "report.json").read_text())
    assert (report["rows"], report["held_out_rows"]) == (2, 1)
    assert report["held_out_denoising_cosine"] != report["held_out_denoising_cosine_before"]
    run_stages(tmp_path / "root", speech | {"echo": {"model": three, "targets": ["echo"], "max_units": 20}})

    other = str(tmp_path / "other")
    train_s2t_command(root, other, [*SMALL, *SHORT, "vocab_size=280"])
    with pytest.raises(ConfigError, match=r"made with tokenizer_id tokenizer-\w+, .*other .* Run the echo stage"):
        train_echo_command(root, other, three, SHORT)


def test_training_without_its_rows_says_what_to_run(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no table training/s2t\. Run a job with the stage publish_s2t"):
        train_s2t_command(dataset.root, str(tmp_path), [])
    with pytest.raises(ConfigError, match=r"train-s2t\.yaml: recipe\.step: "):
        train_s2t_command(dataset.root, str(tmp_path), ["recipe.step=3"])
    with pytest.raises(ModelError, match=r"has no config\.json"):
        train_t2c_command(dataset.root, str(tmp_path), [], language_model=str(tmp_path / "none"))


def test_a_published_echox_of_words_of_units_is_refused_before_its_weights_are_read(
    dataset: Dataset, tmp_path: Path
) -> None:
    model = write_released(tmp_path / "EchoX-3B")
    for weights in model.glob("model*"):
        weights.unlink()
    said = "EchoX-3B: the unit decoder's ids are words of units, .* train s2t"
    out = str(tmp_path / "out")
    with pytest.raises(ConfigError, match=said):
        train_t2c_command(dataset.root, out, [], language_model=str(model))
    with pytest.raises(ConfigError, match=said):
        train_echo_command(dataset.root, str(model), out, [])


def test_the_shipped_recipe_is_that_of_the_shipped_model() -> None:
    import yaml

    from echo_targets.jobs.config import CONFIGS

    config = json.loads((asset("embedded:nano-t2c") / "config.json").read_text())
    recipe = yaml.safe_load((CONFIGS / "train-t2c.yaml").read_text())
    sizes = {name: value for name, value in recipe["model"].items() if name != "segments"}
    assert {name: config[name] for name in sizes} == sizes
    assert config["segments"]["threshold"] > CLAUSE_END, "the shipped model learned whole sentences"
    assert SegmentRule(**recipe["model"]["segments"]) == SegmentRule()


def test_missing_weights_are_named() -> None:
    from echo_targets.transforms.stages.echo.parameters import EchoParameters
    from echo_targets.transforms.stages.echo.stage import Echo

    with pytest.raises(ModelError, match=r"nowhere has no readable config\.json"):
        Echo(EchoParameters(model="nowhere")).weight_digests()


def test_several_codebooks_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    for table in ("units", "training/t2c"):
        root.put(table, [sample(table, 2), sample(table, 6)])  # two units a frame
    said = "2 units per frame.*Tokenize with num_codebooks=1"
    with pytest.raises(UserError, match=said):
        fit_unit_language_command(str(root.folder), str(tmp_path / "words"), 150, 4)
    for train in (train_t2c_command, train_reader_command):
        with pytest.raises(UserError, match=said):
            train(str(root.folder), str(tmp_path / "model"))
    root.put("units", [sample("units", 1), sample("units", 2)])
    with pytest.raises(UserError, match="units of 2 codebooks, expected one"):
        fit_unit_language_command(str(root.folder), str(tmp_path / "words"), 150, 4)
