"""Prompt templates: the tokens around a turn's audio. Each is a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from echo_targets.transforms.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class PromptTemplate(BaseModel):
    """Tokens before and after the placeholder for a turn's audio.

    Attributes:
        id: stored with every row that used the template.
        before_audio, after_audio: tokens of the tokenizer's vocabulary; the reply follows the last one.
        after_reply: tokens between a reply and the next turn's audio.
        before_reply: tokens that a reply starts with. They are prepended to a given reply; when generating, the model
            writes them itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    before_audio: list[str]
    after_audio: list[str]
    after_reply: list[str]
    before_reply: list[str] = []

    @property
    def assistant_after_audio_shift(self) -> int:
        """Positions from the placeholder to the token whose state predicts the reply's first token."""
        return len(self.after_audio)

    def ids(self, tokenizer: Tokenizer, replies: Sequence[Sequence[int]]) -> list[int | None]:
        """Return a dialogue's tokens up to the next reply, with None in place of each turn's audio.

        Args:
            replies: tokens of the replies to all turns but the last.
        """
        before, after, between = (
            [tokenizer.token_to_id(token) for token in tokens]
            for tokens in (self.before_audio, self.after_audio, self.after_reply)
        )
        ids: list[int | None] = [*before, None, *after]
        start = self.reply_start(tokenizer)
        for reply in replies:
            ids += [*start, *reply, *between, None, *after]
        return ids

    def reply_start(self, tokenizer: Tokenizer) -> list[int]:
        """Return the ids of `before_reply`."""
        return [tokenizer.token_to_id(token) for token in self.before_reply]

    @classmethod
    def load(cls, path: Path, tokenizer: Tokenizer) -> PromptTemplate:
        """Load a template and check its tokens against the tokenizer.

        Raises:
            ModelError: the file is not a template, or names a token that the tokenizer lacks.
        """
        try:
            template = cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelError(f"{path}: not a prompt template ({error})") from error
        for token in (*template.before_audio, *template.after_audio, *template.after_reply, *template.before_reply):
            if tokenizer.token_to_id(token) is None:
                raise ModelError(f"{path}: the tokenizer has no token {token!r}")
        return template
