"""The unit language's `encode_batch` against sentencepiece's unigram model: the same words, scores and sequences.

python -m benchmarks.units [--limit N] [--rounds 5]        # needs sentencepiece

Each sequence is an utterance of the real speech; the whole is encoded twenty times over. sentencepiece is given
our vocabulary, so the two should write the same words.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.common import SAMPLE_RATE, chosen, compare, speech
from transforms.assets import asset
from transforms.codebook import Codebook
from transforms.models.whisper_weights import EMBEDDED
from transforms.tokenize import Features, TokenizeParameters
from transforms.unit_language import FIRST_CHARACTER, UnitLanguage

TIMES = 20


def main(limit: int | None, rounds: int) -> None:
    sequences, seconds = units_of_speech(limit)
    language = UnitLanguage.load(asset("embedded:unit-language-k100.json"))
    theirs = _sentencepiece(language)
    many = sequences * TIMES
    found: dict[str, list[list[int]]] = {}

    def ours() -> None:
        found["ours"] = language.encode_batch(many)

    def sentencepiece() -> None:
        texts = ["".join(chr(FIRST_CHARACTER + unit) for unit in sequence) for sequence in many]
        found["theirs"] = [[id_ - 1 for id_ in ids] for ids in theirs.encode(texts, num_threads=1)]

    def sentencepiece_threads() -> None:
        texts = ["".join(chr(FIRST_CHARACTER + unit) for unit in sequence) for sequence in many]
        found["theirs, in threads"] = [[id_ - 1 for id_ in ids] for ids in theirs.encode(texts)]

    units = sum(map(len, many))
    print(f"{len(many)} sequences, {units} units, {len(language.vocabulary)} words\n")
    contenders = {
        "echo-targets, encode_batch": ours,
        "sentencepiece, one thread": sentencepiece,
        "sentencepiece, its threads": sentencepiece_threads,
    }
    compare(contenders, seconds * TIMES, rounds)
    same = sum(one == two for one, two in zip(found["ours"], found["theirs"], strict=True))
    print(f"{same} of {len(many)} sequences are the same words")


def units_of_speech(limit: int | None) -> tuple[list[list[int]], float]:
    """Collapsed units of the real speech, a list an utterance, and the seconds of audio."""
    waveforms, _, _ = speech(limit=limit)
    book = Codebook.load(asset(TokenizeParameters().codebook))
    features = Features(EMBEDDED, book.layer, "cpu")
    sequences = []
    for waveform in waveforms:
        labels = book.quantize(features([waveform])[0])
        sequences.append(labels[np.append(True, labels[1:] != labels[:-1])].tolist())
    return sequences, sum(map(len, waveforms)) / SAMPLE_RATE


def _sentencepiece(language: UnitLanguage) -> Any:
    """A sentencepiece model of our words and their log-probabilities; its ids are ours and one for the unknown."""
    from sentencepiece import SentencePieceProcessor
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_model_pb2  # for any protobuf

    model = sentencepiece_model_pb2.ModelProto()
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
