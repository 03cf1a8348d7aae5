"""Recognizers by name."""

from __future__ import annotations

from echo_targets.transforms.models.asr.base import Recognizer
from echo_targets.transforms.models.asr.faster_whisper import FasterWhisper
from echo_targets.transforms.models.asr.openai_whisper import OpenAIWhisper

BACKENDS: dict[str, type[Recognizer]] = {"faster-whisper": FasterWhisper, "openai-whisper": OpenAIWhisper}
