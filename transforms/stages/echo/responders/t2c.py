"""A text-to-codec model as responder: it decodes given replies, cut by their text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.t2c.config import Decoded
from echo_targets.transforms.models.t2c.model import T2C, is_t2c, learned_segments, model_digest
from echo_targets.transforms.segments.rule import SegmentRule, text_scores
from echo_targets.transforms.stages.echo.parameters import EchoParameters, Origin
from echo_targets.transforms.stages.echo.responders.base import Answer, Responder, Segment, UserTurn


class T2CResponder(Responder):
    """A text-to-codec model."""

    wants_audio: ClassVar[bool] = False

    def __init__(self, parameters: EchoParameters, device: str) -> None:
        super().__init__(parameters, device)
        if (parameters.response, parameters.text) != ("reference", "response") or "echo" in parameters.targets:
            raise ModelError(
                f"{parameters.model} is a text-to-codec model: response={parameters.response}, "
                f"text={parameters.text}, targets={parameters.targets} need an EchoX checkpoint as echo.model; it "
                "takes response=reference, text=response, and targets without echo"
            )

    @staticmethod
    def can_load(path: Path) -> bool:
        return is_t2c(path)

    def weight_digests(self) -> dict[str, str]:
        return {"model": model_digest(self.path)}

    @property
    def segment_rule(self) -> SegmentRule:
        """The configured rule, else the rule that the model was trained with."""
        return self.parameters.segments or learned_segments(self.path) or SegmentRule()

    def setup(self) -> None:
        self._t2c = T2C.load(self.path, self.device)
        self.tokenizer = self._t2c.tokenizer
        self.num_units = self._t2c.config.num_units
        self.model_id = f"t2c-{model_digest(self.path)[:8]}"

    def answer(self, turns: Sequence[UserTurn], encoded: Sequence[list[Any]]) -> list[Answer]:
        return [self._given(turn.reply or "") for turn in turns]

    def _given(self, text: str) -> Answer:
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ends = [end for _, end in encoding.offsets]
        return Answer(text, list(encoding.ids), ends, text_scores(text, encoding.offsets))

    def say(self, segments: Sequence[Segment], origin: Origin) -> list[Decoded]:
        return self._t2c.generate(
            [segment.ids for segment in segments], self.parameters.max_units, self.parameters.beams
        )
