"""Prompt templates: where a dialogue's own system text stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_targets.transforms.assets import asset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.t2c.model import character_tokenizer
from tests.transforms.released_echox import SYSTEM, WORDS, released_tokenizer

OWN = "You are an assistant. What is the language?"
NANO = {"id": "n", "before_audio": ["<user>"], "after_audio": ["<end>"], "after_reply": ["<end>", "<user>"]}


def test_a_dialogues_text_replaces_the_releases() -> None:
    """Token by token as its code would encode another system text, which begins with <|begin_of_text|>."""
    tokenizer = released_tokenizer(WORDS)
    backend = tokenizer.backend_tokenizer
    template = PromptTemplate.load(asset("embedded:prompts/echox.json"), backend)
    own, fixed = template.ids(backend, [[7]], OWN), template.ids(backend, [[7]])
    released, said = tokenizer(SYSTEM).input_ids, tokenizer(OWN).input_ids
    assert released[0] == said[0] == backend.token_to_id("<|begin_of_text|>")
    place = next(at for at in range(len(fixed)) if fixed[at : at + len(released)] == released)
    assert own == [*fixed[:place], *said, *fixed[place + len(released) :]] != fixed


def test_llama_3_has_the_text_between_its_headers() -> None:
    backend = released_tokenizer(WORDS).backend_tokenizer
    template = PromptTemplate.load(asset("embedded:prompts/llama-3.json"), backend)
    before, after = template.around_audio(backend, OWN)
    header = ["<|begin_of_text|>", "<|start_header_id|>", "system", "<|end_header_id|>", "Ċ"]
    user = ["<|eot_id|>", "<|start_header_id|>", "user", "<|end_header_id|>", "Ċ"]
    around = [[backend.token_to_id(token) for token in tokens] for tokens in (header, user)]
    assert before == [*around[0], *backend.encode(OWN, add_special_tokens=False).ids, *around[1]]
    assert template.ids(backend, [], OWN) == [*before, None, *after]
    default, same = template.around_audio(backend)
    assert same == after and backend.decode(default).count("You are a helpful language and speech assistant.") == 1


def test_a_template_without_a_place_does_not_take_a_text(tmp_path: Path) -> None:
    tokenizer = character_tokenizer()
    template = PromptTemplate.model_validate(NANO)
    assert template.ids(tokenizer, [])[0] == tokenizer.token_to_id("<user>")
    with pytest.raises(
        ModelError, match=r"template n has no place for the system text 'Be brief.': choose .*before_sys"
    ):
        template.ids(tokenizer, [], "Be brief.")
    placed = PromptTemplate.model_validate({**NANO, "before_system": []})
    assert placed.ids(tokenizer, []) == template.ids(tokenizer, [])
    said = tokenizer.encode("Be brief.", add_special_tokens=False).ids
    assert placed.ids(tokenizer, [], "Be brief.") == [*said, *template.ids(tokenizer, [])]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"system": ["<user>"]}, "`system` needs `before_system`, the tokens before it"),
        ({"before_system": ["<system>"]}, "the tokenizer has no token '<system>'"),
        ({"before_system": [], "system": ["<fixed>"]}, "the tokenizer has no token '<fixed>'"),
        ({"after_system": []}, "not a prompt template"),
    ],
)
def test_a_template_that_is_wrong_is_named(tmp_path: Path, changes: dict[str, list[str]], says: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps({**NANO, **changes}))
    with pytest.raises(ModelError, match=f"p.json: {says}"):
        PromptTemplate.load(tmp_path / "p.json", character_tokenizer())
