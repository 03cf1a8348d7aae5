"""Compare the unit language's `encode_batch` with sentencepiece's unigram model on equal words, scores and sequences.

python -m benchmarks.units [--limit N] [--rounds 5]

Each sequence is an utterance of real speech; all of them are encoded twenty times. sentencepiece gets our vocabulary,
so both should output the same words except where its 32-bit scores tie. It takes the sequences as strings; converting
them is not timed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.common import chosen, compare, speech
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.encoders.whisper import WhisperFeatures
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.stages.tokenize import TokenizeParameters
from echo_targets.transforms.units.codebook import Codebook, collapse
from echo_targets.transforms.units.language import FIRST_CHARACTER, UnitLanguage

TIMES = 20


def main(limit: int | None, rounds: int) -> None:
    sequences, seconds = units_of_speech(limit)
    language = UnitLanguage.load(asset("embedded:unit-language-k100.json"))
    theirs = _sentencepiece(language)
    many = sequences * TIMES
    texts = ["".join(chr(FIRST_CHARACTER + unit) for unit in sequence.tolist()) for sequence in many]
    found: dict[str, list[list[int]]] = {}

    def ours() -> None:
        found["ours"] = language.encode_batch(many)

    def sentencepiece() -> None:
        found["theirs"] = theirs.encode(texts, num_threads=1)

    def sentencepiece_threads() -> None:
        found["theirs, in threads"] = theirs.encode(texts)

    units = sum(map(len, many))
    print(f"{len(many)} sequences, {units} units, {len(language.vocabulary)} words\n")
    contenders = {
        "echo-targets, encode_batch": ours,
        "sentencepiece, one thread": sentencepiece,
        "sentencepiece, its threads": sentencepiece_threads,
    }
    ours()  # compilation is not timed
    compare(contenders, seconds * TIMES, rounds)
    pairs = zip(found["ours"], found["theirs"], strict=True)
    same = sum(one == [id_ - 1 for id_ in two] for one, two in pairs)  # their id 0 is the unknown token
    print(f"{same} of {len(many)} sequences have the same words")


def units_of_speech(limit: int | None) -> tuple[list[np.ndarray], float]:
    """Return collapsed units of the real speech, (N,) int32 per utterance, and the seconds of audio."""
    waveforms, _, _ = speech(limit=limit)
    book = Codebook.load(asset(TokenizeParameters().codebook))
    features = WhisperFeatures(EMBEDDED, book.layer, "cpu")
    sequences = []
    for waveform in waveforms:
        sequences.append(collapse(book.quantize(features([waveform])[0]))[0])
    return sequences, sum(map(len, waveforms)) / SAMPLE_RATE


def _sentencepiece(language: UnitLanguage) -> Any:
    """Return a sentencepiece model of our words and log-probabilities; its ids are ours + 1 (0 is unknown)."""
    from sentencepiece import SentencePieceProcessor
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_model_pb2  # for any protobuf

    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    model.pieces.add(piece="<unk>", score=0.0, type=model.SentencePiece.UNKNOWN)
    total = sum(language.counts)
    for word, count in zip(language.vocabulary, language.counts, strict=True):
        text = "".join(chr(FIRST_CHARACTER + unit) for unit in word)
        model.pieces.add(piece=text, score=math.log(count / total))
    return SentencePieceProcessor(model_proto=model.SerializeToString())


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)
