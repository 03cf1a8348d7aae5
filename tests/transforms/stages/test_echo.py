"""echo on spoken dialogues: segments, targets, the recorded units of the same segments, and turns without a reply."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rapidfuzz.distance import Levenshtein

from echo_targets.jobs.checking.agreement import check_copies
from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.loading.collate import collate_units, t2c_segments
from echo_targets.transforms.models.readers.ctc import UnitReader, target_cer
from echo_targets.transforms.models.readers.ctc_config import UnitReaderConfig
from echo_targets.transforms.models.readers.registry import open_reader
from echo_targets.transforms.models.t2c.model import T2C, learned_segments
from echo_targets.transforms.models.tokenizers.registry import open_tokenizer
from echo_targets.transforms.models.voices.registry import open_voice
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.segments.rule import SegmentRule
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.responders.base import UserTurn
from echo_targets.transforms.stages.echo.stage import Echo
from echo_targets.transforms.stages.echo.targets import recorded_target, unit_error_rate
from echo_targets.transforms.stages.publish.stage import EchoSetParameters, PublishEcho, PublishT2C, T2CParameters
from echo_targets.transforms.stages.tokenize import TokenizeParameters
from echo_targets.transforms.units.codebook import Codebook
from tests.schemas.samples import sample
from tests.transforms.codec_checkpoints import make_codec
from tests.transforms.rows import apply, rejects, run_stages
from tests.transforms.speechbrain_checkpoints import make_vocoder

LINES = [
    ("a", 0, "Where is the nearest library?"),
    ("a", 1, "The library is on the corner, next to the old bakery. It opens at nine in the morning."),
    ("a", 2, "Thank you. And the bakery?"),
    ("a", 3, "It opens at seven."),
    ("b", 0, "Is anybody there?"),
]
LANGUAGE = "embedded:unit-language-k100.json"
TEXT_ALONE: dict[str, Any] = {"model": "embedded:nano-t2c", "text": "response"}
CLAUSES = {"segments": {"min_tokens": 20, "max_tokens": 50, "threshold": 0.1}}


def untrained_reader(codebook_id: str) -> UnitReader:
    from echo_targets.transforms.models.readers.ctc_network import UnitReaderModule

    config = UnitReaderConfig(
        codebook_id=codebook_id, codebook_size=100, hidden_size=16, ffn_size=16, num_layers=1, reach=1
    )
    return UnitReader(config, UnitReaderModule(config).eval())


@pytest.fixture(scope="module")
def echoed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("echo")
    lines = [{"id": f"{name}{turn}", "dialogue_id": name, "turn": turn, "text": text} for name, turn, text in LINES]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    untrained_reader(Codebook.load(asset("embedded:codebook-tiny.en-l3-k100.safetensors")).id).save(folder / "reader")
    stages = {
        "ingest": {"sources": [{"kind": "spoken", "corpus": "s", "texts": str(folder / "t.jsonl")}]},
        "align": {},
        "tokenize": {"unit_language": LANGUAGE},
        "echo": {**TEXT_ALONE, **CLAUSES, "unit_language": LANGUAGE, "reader": str(folder / "reader")},
        "publish_s2t": {},
        "publish_t2c": {},
        "publish_echo": {"min_mean_logprob": None},
    }
    return run_stages(folder / "root", stages)[0]


def test_each_answered_turn_has_its_targets(echoed: Dataset) -> None:
    rows = {row["utterance_id"]: row for row in echoed.read("echo_targets").to_pylist()}
    assert rows.keys() == {"a0", "a2"}
    assert rows["a0"]["user_audio_ids"] == ["a0"] and rows["a2"]["user_audio_ids"] == ["a0", "a2"]
    assert rows["a0"]["response_text"] == LINES[1][2] and rows["a2"]["response_text"] == LINES[3][2]
    assert {row["response_source"] for row in rows.values()} == {"reference"}
    assert list(check_dataset(echoed.root)) == []


def test_segments_are_of_text_tokens_and_units_alike(echoed: Dataset) -> None:
    model = T2C.load(asset("embedded:nano-t2c"))
    row = echoed.read("echo_targets").to_pylist()[0]
    text, ends = row["response_text"], row["segment_char_ends"]
    assert len(ends) >= 2
    assert row["response_token_ids"] == model.encode(text)
    pieces = [text[start:end] for start, end in pairwise([0, *ends])]
    assert [len(model.encode(piece)) for piece in pieces] == row["sub_lengths"]
    decoded = model.generate([model.encode(piece) for piece in pieces])
    assert [[result.units] for result in decoded] == row["t2c"]["units"]
    assert row["t2c"]["durations"] is None and row["t2c"]["decode_id"] == "t2c-response-greedy"
    assert row["asr_target_ids"] == model.encode(LINES[0][2])


def test_recorded_units_are_the_replys_own(echoed: Dataset) -> None:
    row = echoed.read("echo_targets").to_pylist()[0]
    units = {row["utterance_id"]: row for row in echoed.read("units").to_pylist()}["a1"]
    assert len(row["recorded"]["units"]) == len(row["t2c"]["units"])
    assert frames_of(row["recorded"]) == np.repeat(units["units"][0], units["durations"]).tolist()
    edits = sum(
        Levenshtein.distance(*pair)
        for (pair,) in (
            zip(said, recorded, strict=True)
            for said, recorded in zip(row["t2c"]["units"], row["recorded"]["units"], strict=True)
        )
    )
    rate = edits / sum(len(segment) for (segment,) in row["recorded"]["units"])
    assert row["t2c"]["unit_error_rate"] == pytest.approx(rate, abs=1e-4)
    assert 0 < rate < 0.8 and row["recorded"]["unit_error_rate"] is None


def frames_of(target: dict[str, Any], codebook: int = 0) -> list[int]:
    """All frames of a target."""
    pairs = zip(target["units"], target["durations"], strict=True)
    return [unit for units, times in pairs for unit in np.repeat(units[codebook], times).tolist()]


@pytest.mark.parametrize(("rate", "kept"), [(None, True), (0.2, True), (0.5, True), (0.7, False), (2.3, False)])
def test_a_recording_of_another_text_gives_no_recorded_units(rate: float | None, kept: bool) -> None:
    reply = {
        "units": sample("units", 1),
        "alignments": None,
        "transcripts": {"wer_vs_reference": rate},
    }
    found = recorded_target(reply, [9])
    assert (found and found["units"]) == ([sample("units", 1)["units"]] if kept else None)


def test_recorded_units_may_be_of_another_codebook(echoed: Dataset, tmp_path: Path) -> None:
    """Of several codebooks too; the other targets are the same, and are compared with none of another codebook."""
    folder = Path(echoed.root).parent
    stages = {
        "ingest": {"sources": [{"kind": "spoken", "corpus": "s", "texts": str(folder / "t.jsonl")}]},
        "align": {},
        "tokenize": {"codebook": make_codec(tmp_path / "mimi", "Mimi")},
        "echo": {**TEXT_ALONE, **CLAUSES},
        "publish_echo": {"target": "recorded"},
    }
    dataset, reports = run_stages(tmp_path / "root", stages)
    assert reports["echo"].reasons == {"no_reply": 1}
    rows = dataset.read("echo_targets").to_pylist()
    theirs = [row["t2c"] for row in echoed.read("echo_targets").to_pylist()]
    assert [row["t2c"]["units"] for row in rows] == [target["units"] for target in theirs]
    assert [row["t2c"]["codebook_id"] for row in rows] == [target["codebook_id"] for target in theirs]
    assert [row["t2c"]["unit_error_rate"] for row in rows] == [None, None]
    published = {row["utterance_id"]: row for row in dataset.read("training/echo").to_pylist()}
    for row, reply in zip(rows, ("a1", "a3"), strict=True):
        (units,) = (unit for unit in dataset.read("units").to_pylist() if unit["utterance_id"] == reply)
        assert units["num_codebooks"] > 1 and len(row["recorded"]["units"]) == len(row["sub_lengths"])
        for codebook in range(units["num_codebooks"]):
            whole = np.repeat(units["units"][codebook], units["durations"]).tolist()
            assert frames_of(row["recorded"], codebook) == whole
        sent = published[row["utterance_id"]]
        assert (sent["target"], sent["model_id"], sent["unit_targets"]) == ("recorded", None, row["recorded"]["units"])
        assert sent["unit_durations"] == row["recorded"]["durations"]
        assert sent["hop_samples"] == units["hop_samples"] and sent["sampling_rate"] == units["sampling_rate"]
    assert list(check_dataset(dataset.root)) == list(check_copies(dataset.root)) == []


def test_a_codebook_is_named_as_tokenize_names_it(tmp_path: Path) -> None:
    """A codec, of which the first codebook is meant, or a k-means file; a fingerprint has what they mean."""
    import joblib
    import numpy as np
    from sklearn.cluster import KMeans

    codec = {"codebook": make_codec(tmp_path / "mimi", "Mimi")}
    file = str(tmp_path / "km.bin")
    joblib.dump(KMeans(4, n_init=1).fit(np.random.default_rng(0).normal(size=(50, 8))), file)
    for named, tokenize in (
        ({}, TokenizeParameters()),
        (codec, TokenizeParameters(**codec, num_codebooks=1)),
        ({"codebook": file, "layer": 2}, TokenizeParameters(codebook=file, layer=2)),
    ):
        echo = Echo(EchoParameters.model_validate({**TEXT_ALONE, **named}))
        assert echo.weight_digests()["codebook"] == tokenize.open().digest
        assert echo.parameters.open_codebook().codebook_id == tokenize.open().codebook_id
        assert not {"codebook", "encoder", "layer"} & echo.fingerprint_parameters().keys()
        voice = Echo(
            EchoParameters.model_validate({**TEXT_ALONE, "targets": ["voice"], "voice": tokenize.model_dump()})
        )
        assert voice.weight_digests()["voice.codebook"] == tokenize.open().weight_digests()["codebook"]
        assert voice.fingerprint_parameters()["voice"] == {"speaker": None, "rate": 1.0, "dtype": "float32"}
        assert "voice" not in echo.fingerprint_parameters()
    with pytest.raises(ModelError, match="set `layer`"):
        Echo(EchoParameters.model_validate({**TEXT_ALONE, "codebook": file})).weight_digests()


def test_target_cer_is_of_what_the_targets_are_read_as(echoed: Dataset) -> None:
    rows = echoed.read("echo_targets").to_pylist()
    reader = UnitReader.load(Path(echoed.root).parent / "reader")
    texts = [row["response_text"] for row in rows]
    for origin in ("t2c", "recorded"):
        units = [row[origin]["units"] for row in rows]
        rates = [row[origin]["target_cer"] for row in rows]
        assert rates == pytest.approx(target_cer(reader, texts, units), abs=1e-4) and len({*rates}) == len(rows)


def test_a_vocoder_may_read_the_targets(echoed: Dataset, tmp_path: Path) -> None:
    reader = str(make_vocoder(tmp_path, 101))
    echo = Echo(EchoParameters.model_validate({**TEXT_ALONE, **CLAUSES, "reader": reader}))
    echo.setup()
    shard = {name: echoed.read(name) for name in ("utterances", "alignments", "units")}
    rows = echo.rows(shard["utterances"], shard).slice(0, 2)
    together = apply(echo, rows).rows.to_pylist()
    assert together == [row for place in (0, 1) for row in apply(echo, rows.slice(place, 1)).rows.to_pylist()]
    rates = target_cer(
        open_reader(tmp_path, EMBEDDED, "cpu"),
        [row["response_text"] for row in together],
        [row["t2c"]["units"] for row in together],
    )
    assert [row["t2c"]["target_cer"] for row in together] == pytest.approx(rates, abs=1e-4)


def test_a_reader_of_another_codebook_is_an_error(tmp_path: Path) -> None:
    untrained_reader("another").save(tmp_path)
    with pytest.raises(ModelError, match="is for units of another, not whisper-"):
        Echo(EchoParameters.model_validate({**TEXT_ALONE, "reader": str(tmp_path)})).setup()


def test_a_turn_without_a_reply_is_a_reject_that_says_so(echoed: Dataset) -> None:
    found = rejects(echoed, "echo_targets")
    assert {key: row["error_class"] for key, row in found.items()} == {"b0": "no_reply"}
    assert "turn 1 of dialogue b" in found["b0"]["message"]


def test_a_reply_of_which_the_tokenizer_keeps_nothing_is_a_reject() -> None:
    echo = Echo(EchoParameters.model_validate(TEXT_ALONE))
    echo.setup()
    accent = "\N{COMBINING ACUTE ACCENT}"  # the embedded tokenizer leaves accents out
    written, (reject,) = echo._answered([({KEY: "a0"}, UserTurn("a0", [], [], accent))], [[]])
    assert written == [] and (reject.utterance_id, reject.error_class) == ("a0", "empty_reply")
    assert "the tokenizer keeps nothing of it" in reject.message


def test_training_sets(echoed: Dataset) -> None:
    s2t = {row["utterance_id"]: row for row in echoed.read("training/s2t").to_pylist()}
    assert s2t.keys() == {"a0", "a2", "b0"}
    assert s2t["a0"]["response_text"] == LINES[1][2] and s2t["b0"]["response_text"] is None
    t2c = {row["utterance_id"]: row["text"] for row in echoed.read("training/t2c").to_pylist()}
    assert t2c == {"a1": LINES[1][2], "a3": LINES[3][2]}
    echo = echoed.read("training/echo").to_pylist()
    assert [row["text"] for row in echo] == [LINES[0][2], LINES[2][2]]
    assert all(row["audio"]["bytes"] for row in echo)
    assert {row["error_class"] for row in rejects(echoed, "training/echo").values()} == {"filtered_no_echo_targets"}


def test_a_new_threshold_recomputes_publish_alone(echoed: Dataset, tmp_path: Path) -> None:
    before = echoed.tables()
    recipe = echoed.recipe("training/t2c", before["training/t2c"].recipe)
    assert recipe.parameters["max_wer"] == 0.5
    from echo_targets.pipeline.stage import recipe_of
    from echo_targets.transforms.stages.publish.stage import PublishT2C, T2CParameters

    changed = recipe_of(PublishT2C(T2CParameters(max_wer=0.1)), recipe.upstream)
    assert changed.fingerprint != recipe.fingerprint
    assert changed.upstream == {name: before[name].recipe for name in recipe.upstream}


def test_unit_error_rate() -> None:
    def of(*segments: list[list[int]], codebook: str = "k") -> dict[str, Any]:
        return {"codebook_id": codebook, "num_codebooks": len(segments[0]), "units": list(segments)}

    assert unit_error_rate(of([[1, 2, 3]]), of([[1, 2, 3]])) == 0
    assert unit_error_rate(of([[1, 3]], [[]]), of([[1, 2, 3]], [[4]])) == pytest.approx(0.5)
    assert unit_error_rate(of([[1, 3], [1, 3]]), of([[1, 3], [1, 2]])) == pytest.approx(0.5), "a unit is one of both"
    assert unit_error_rate(of([[1]]), None) is None
    assert unit_error_rate(of([[1]]), of([[]])) is None
    assert unit_error_rate(of([[1]]), of([[1]], codebook="other")) is None
    assert unit_error_rate(of([[1]]), of([[1], [1]])) is None


def test_a_model_s_own_rule_cuts_its_replies(tmp_path: Path) -> None:
    """The rule that it was trained on, unless another is named; the fingerprint has the rule that is used."""
    own = Echo(EchoParameters.model_validate(TEXT_ALONE)).fingerprint_parameters()["segments"]
    assert own == {"lookahead": 5, "min_tokens": 10, "max_tokens": 110, "threshold": 0.6}
    named = Echo(EchoParameters.model_validate({**TEXT_ALONE, **CLAUSES})).fingerprint_parameters()["segments"]
    assert named == SegmentRule().model_dump()
    assert Echo(EchoParameters()).fingerprint_parameters()["segments"] == named  # EchoX's release


SENTENCE = "The shop opens at nine, the market opens at ten, and both of them close at six in the evening. "


def test_a_reply_of_two_minutes_is_training_data() -> None:
    """Published whole, with the recorded units of every segment, though the user's turn is held to 30 s."""
    text = (SENTENCE * 20).strip()
    words, place = [], 0
    for word in text.split(" "):
        times = {"start_sample": 1000 * place, "end_sample": 1000 * (place + len(word)), "interpolated": False}
        words.append({"symbol": word, "char_start": place, "char_end": place + len(word), "score": 0.9, **times})
        place += len(word) + 1
    samples = {0: 32_000, 1: 1000 * len(text)}
    assert samples[1] > 110 * 16_000
    turns = [
        sample("utterances", turn)
        | {"dialogue_id": "d", "num_samples": samples[turn], "reference_text": said, "language": "en"}
        for turn, said in ((0, "When do they open?"), (1, text))
    ]
    frames = -(-samples[1] // 320)
    book = Echo(EchoParameters.model_validate(TEXT_ALONE)).parameters.open_codebook().codebook_id
    units = sample("units", 1) | {
        "codebook_id": book,
        "num_frames": frames,
        "units": [[place % 2 for place in range(frames // 2)]],
        "durations": [2] * (frames // 2 - 1) + [frames - 2 * (frames // 2 - 1)],
    }
    alignment = sample("alignments", 1) | {"items": words, "coverage": 1.0, "status": "ok"}
    shard = {
        name: pa.Table.from_pylist(rows, schema=TABLES[name].schema)
        for name, rows in (("utterances", turns), ("units", [units]), ("alignments", [alignment]))
    }
    echo = Echo(EchoParameters.model_validate(TEXT_ALONE))
    echo.setup()
    targets = apply(echo, echo.rows(shard["utterances"], shard)).rows
    (row,) = targets.to_pylist()
    assert len(row["t2c"]["units"]) == len(row["recorded"]["units"]) == 20
    joined = [unit for (segment,) in row["recorded"]["units"] for unit in segment]
    assert sum(after == before for before, after in pairwise(joined)) + len(units["units"][0]) == len(joined)
    publish = PublishEcho(EchoSetParameters(stop_reasons=["end", "length"]))
    published = publish(publish.rows(shard["utterances"], shard | {"echo_targets": targets}))
    assert len(published.rows) == 1 and not published.rejects
    t2c = PublishT2C(T2CParameters())
    (said,) = t2c(t2c.rows(shard["utterances"], shard)).rows.to_pylist()
    segments = t2c_segments(said, learned_segments(asset("embedded:nano-t2c")))
    assert [segment["text"] for segment in segments] == [
        row["response_text"][start:end] for start, end in pairwise([0, *row["segment_char_ends"]])
    ]
    assert [[segment["units"][0].tolist()] for segment in segments] == row["recorded"]["units"]


def test_a_voice_says_the_segments_and_any_tokenizer_encodes_it(echoed: Dataset, tmp_path: Path) -> None:
    """Targets with frames of several codebooks, for a reply that has only a text, beside those of T2C."""
    reply = "It is 12 o'clock, I think, so we have time. ... And the shop on St. Mark's square is open until 6."
    lines = [
        {"id": "a0", "dialogue_id": "a", "turn": 0, "text": LINES[0][2]},
        {"id": "a1", "dialogue_id": "a", "turn": 1, "text": reply},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    codec = make_codec(tmp_path / "mimi", "Mimi")
    voice = {"codebook": codec, "num_codebooks": 3}
    stages = {
        "ingest": {"sources": [{"kind": "spoken", "corpus": "s", "texts": str(tmp_path / "t.jsonl")}]},
        "echo": {**TEXT_ALONE, **CLAUSES, "targets": ["t2c", "voice"], "voice": voice, "reader": codec},
        "publish_echo": {"target": "voice", "min_mean_logprob": None},
    }
    dataset, _ = run_stages(tmp_path / "root", stages)
    (row,) = dataset.read("echo_targets").to_pylist()
    target = row["voice"]
    texts = [row["response_text"][start:end] for start, end in pairwise([0, *row["segment_char_ends"]])]
    assert "".join(texts) == reply and len(texts) > 1
    said = " ".join(target["spoken_text"])
    assert "twelve o'clock" in said and not any(letter.isdigit() for letter in said)
    speaker, tokenizer = open_voice(), open_tokenizer(codec, EMBEDDED, None, 3)
    speaker.setup()
    tokenizer.setup("cpu")
    seed = EchoParameters().seed_of("a0")
    for place, text in enumerate(target["spoken_text"]):
        (frames,) = tokenizer([speaker.speak(text, seed=seed)])
        assert np.repeat(target["units"][place], target["durations"][place], axis=1).T.tolist() == frames.tolist()
    assert target["model_id"] == speaker.id and target["num_codebooks"] == 3 and target["stop_reason"] is None
    assert target["target_cer"] is not None and row["t2c"]["target_cer"] is None, "a codec reads only frames"
    assert list(check_dataset(dataset.root)) == list(check_copies(dataset.root)) == []
    batch = collate_units(dataset.read("training/echo").to_pylist(), delays=range(3))
    assert batch["units"].shape[1] == 3 and batch["segment_lengths"].sum() == batch["units_lengths"].sum()
