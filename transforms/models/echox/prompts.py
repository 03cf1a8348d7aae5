"""Prompt templates: the tokens around a system text and a turn's audio. Each is a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from echo_targets.transforms.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class PromptTemplate(BaseModel):
    """Tokens around a dialogue's system text and around the placeholders for the audio of its turns.

    Attributes:
        id: stored with every row that used the template.
        before_system: tokens before a system text; null if the template has no place for one.
        system: the system text of dialogues that have none of their own, as tokens; needs `before_system`.
        before_audio, after_audio: tokens of the tokenizer's vocabulary; the reply follows the last one.
        after_reply: tokens between a reply and the next turn's audio.
        before_reply: tokens that a reply starts with. They are prepended to a given reply; when generating, the model
            writes them itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    before_system: list[str] | None = None
    system: list[str] = []
    before_audio: list[str]
    after_audio: list[str]
    after_reply: list[str]
    before_reply: list[str] = []

    @property
    def assistant_after_audio_shift(self) -> int:
        """Positions from the placeholder to the token whose state predicts the reply's first token."""
        return len(self.after_audio)

    def ids(
        self, tokenizer: Tokenizer, replies: Sequence[Sequence[int]], system_text: str | None = None
    ) -> list[int | None]:
        """Return a dialogue's tokens up to the next reply, with None in place of each turn's audio.

        Args:
            replies: tokens of the replies to all turns but the last.
            system_text: the dialogue's system text; None for the template's own.

        Raises:
            ModelError: there is a system text, and the template has no place for it.
        """
        before, after = self.around_audio(tokenizer, system_text)
        start, between = self.reply_start(tokenizer), _ids(tokenizer, self.after_reply)
        ids: list[int | None] = [*before, None, *after]
        for reply in replies:
            ids += [*start, *reply, *between, None, *after]
        return ids

    def around_audio(self, tokenizer: Tokenizer, system_text: str | None = None) -> tuple[list[int], list[int]]:
        """Return the tokens before and after the audio of a dialogue's first turn; arguments are as for `ids`."""
        if system_text is None:
            system = _ids(tokenizer, self.system)
        elif self.before_system is None:
            raise ModelError(
                f"the prompt template {self.id} has no place for the system text {system_text!r}: choose a template "
                "with `before_system`"
            )
        else:
            system = tokenizer.encode(system_text, add_special_tokens=False).ids
        before = [*_ids(tokenizer, self.before_system or []), *system, *_ids(tokenizer, self.before_audio)]
        return before, _ids(tokenizer, self.after_audio)

    def reply_start(self, tokenizer: Tokenizer) -> list[int]:
        """Return the ids of `before_reply`."""
        return _ids(tokenizer, self.before_reply)

    @classmethod
    def read(cls, path: Path) -> PromptTemplate:
        """Read a template.

        Raises:
            ModelError: the file is not a template.
        """
        try:
            template = cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelError(f"{path}: not a prompt template ({error})") from error
        if template.system and template.before_system is None:
            raise ModelError(f"{path}: `system` needs `before_system`, the tokens before it; [] if there are none")
        return template

    @classmethod
    def load(cls, path: Path, tokenizer: Tokenizer) -> PromptTemplate:
        """Read a template and check its tokens against the tokenizer.

        Raises:
            ModelError: the file is not a template, or names a token that the tokenizer lacks.
        """
        template = cls.read(path)
        lists = (
            template.before_system or [],
            template.system,
            template.before_audio,
            template.after_audio,
            template.after_reply,
            template.before_reply,
        )
        for token in (token for tokens in lists for token in tokens):
            if tokenizer.token_to_id(token) is None:
                raise ModelError(f"{path}: the tokenizer has no token {token!r}")
        return template


def _ids(tokenizer: Tokenizer, tokens: Sequence[str]) -> list[int]:
    return [tokenizer.token_to_id(token) for token in tokens]
