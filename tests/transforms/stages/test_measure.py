"""Scores of real speech, against signals and texts whose scores are known, and in other company."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.jobs.corpora import nano_domain
from echo_targets.schemas import KEY, MEASURES, SAMPLE_RATE, TRANSCRIPTS
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.audio.waveforms import decode_flac, encode_flac
from echo_targets.transforms.base import joined, table_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.embedded import SILERO_VAD, EmbeddedFile
from echo_targets.transforms.stages.measure import RUN_WORDS, Measure, MeasureParameters, loudness, repetition
from echo_targets.transforms.stages.publish.fences import RateFences
from echo_targets.transforms.stages.publish.filters import SpeechFilters
from echo_targets.transforms.text import normalize, pieces
from tests.schemas.samples import sample
from tests.transforms.rows import apply, rejects, run_stages, window

TEXT_SCORES = ("chars_per_s", "unique_word_share", "longest_word", "longest_word_excess", "repeated_share")

OPINIONS = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808")


def words_of(text: str) -> list[str]:
    """The words that the scores of a text are of."""
    return pieces(normalize(text, ""))


@pytest.fixture(scope="module")
def measure() -> Measure:
    transform = Measure(MeasureParameters())
    transform.setup()
    return transform


@pytest.fixture(scope="module")
def spoken(ingested: Dataset) -> pa.Table:
    """Eight utterances of real speech, not transcribed."""
    return joined(window(ingested), TRANSCRIPTS, None)


def waveform_of(rows: pa.Table, number: int) -> np.ndarray:
    return decode_flac(rows["audio"][number]["bytes"].as_py())


def measured(measure: Measure, rows: pa.Table, *waveforms: np.ndarray) -> list[dict[str, Any]]:
    """Scores of sounds that stand in the places of the first rows' own."""
    audio = [{"bytes": encode_flac(np.rint(sound * 32_767).astype(np.int16)), "path": "a.flac"} for sound in waveforms]
    rows = rows.slice(0, len(waveforms))
    for name, values in (("audio", audio), ("num_samples", list(map(len, waveforms)))):
        at = rows.column_names.index(name)
        rows = rows.set_column(at, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))
    return apply(measure, rows).rows.to_pylist()


def sine(dbfs: float, seconds: float) -> np.ndarray:
    """997 Hz, its peak at `dbfs`: mono, it has 3.01 LU less (BS.1770-4, annex 1)."""
    return 10 ** (dbfs / 20) * np.sin(2 * np.pi * 997 * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def test_real_speech_is_measured_once_for_all_thresholds(
    ingested: Dataset, tmp_path: Path, speech: list[dict[str, Any]]
) -> None:
    manifest = tmp_path / "m.tsv"
    manifest.write_text("id\taudio\ttext\n" + "".join(f"{r['id']}\t{r['audio']}\t{r['text']}\n" for r in speech[:5]))
    sources = [{"kind": "manifest", "corpus": "speech", "manifest": str(manifest)}]
    stages: dict[str, Any] = {"ingest": {"sources": sources}, "measure": {}, "publish_s2t": {}}
    dataset, reports = run_stages(tmp_path / "root", stages)
    assert list(check_dataset(dataset.root)) == []
    assert (reports["measure"].rows, reports["publish_s2t"].rows) == (5, 5)
    rows, before = dataset.read("measures").to_pylist(), dataset.tables()
    for row in rows:
        assert -40 < row["loudness_lufs"] < -15 and 0.4 < row["speech_share"] <= 1
        assert 5 < row["chars_per_s"] < 22 and row["unique_word_share"] > 0.6
        assert row["bandwidth_hz"] > 5000 and row["clipped_share"] < 0.001 and row["snr_db"] > 5
        assert {row[name] for name in OPINIONS} == {None}, "nobody asked for them"
    middle = sorted(row["speech_share"] for row in rows)[2]
    run_stages(tmp_path / "root", stages | {"publish_s2t": {"min_speech_share": middle}})
    less = {row[KEY] for row in rows if row["speech_share"] < middle}
    assert len(less) == 2 and rejects(dataset, "training/s2t").keys() == less
    assert {name for name, version in dataset.tables().items() if before[name] != version} == {"training/s2t"}


def test_a_score_hangs_on_its_row_alone(measure: Measure, spoken: pa.Table) -> None:
    together = apply(measure, spoken).rows
    backwards = apply(measure, spoken.take(list(range(len(spoken) - 1, -1, -1)))).rows
    alone = pa.concat_tables([apply(measure, spoken.slice(number, 1)).rows for number in range(len(spoken))])
    assert together.equals(alone) and together.sort_by(KEY).equals(backwards.sort_by(KEY))


def test_opinions_are_given_when_asked_for(ingested: Dataset, tmp_path: Path, speech: list[dict[str, Any]]) -> None:
    pytest.importorskip("speechmos")
    manifest = tmp_path / "m.tsv"
    manifest.write_text("id\taudio\n" + "".join(f"{row['id']}\t{row['audio']}\n" for row in speech[30:33]))
    sources = [{"kind": "manifest", "corpus": "speech", "manifest": str(manifest)}]
    stages: dict[str, Any] = {"ingest": {"sources": sources}, "measure": {"dnsmos": True}}
    dataset, _ = run_stages(tmp_path / "root", stages)
    assert list(check_dataset(dataset.root)) == []
    rows = dataset.read("measures").to_pylist()
    assert all(1 < row[name] < 5 for row in rows for name in OPINIONS)
    assert len({row["dnsmos_ovrl"] for row in rows}) == 3
    recipe = dataset.recipe("measures", dataset.current("measures").recipe)
    assert recipe.parameters == {"dnsmos": True} and recipe.weights.keys() == {"vad", "dnsmos_p835", "dnsmos_p808"}


def test_an_embedding_is_of_the_voice_alone(spoken: pa.Table) -> None:
    """Neither pauses nor a constant offset change it, and what is no speech has none."""
    if find_spec("resemblyzer") is None:
        pytest.skip("resemblyzer is not installed")
    transform = Measure(MeasureParameters(speaker_model="embedded:resemblyzer"))
    transform.setup()
    speech, pause = waveform_of(spoken, 4) / 2, np.zeros(3 * SAMPLE_RATE)
    rows = measured(transform, spoken, speech, np.concatenate([pause, speech, pause]), speech + 0.2, pause + 1e-4)
    plain, paused, offset = (np.array(row["speaker_embedding"]) for row in rows[:3])
    assert plain @ paused > 0.97 and plain @ offset > 0.97 and rows[3]["speaker_embedding"] is None
    alone = measured(transform, spoken, speech)[0]["speaker_embedding"]
    assert alone == rows[0]["speaker_embedding"]


def test_silence_around_speech_is_seen_and_not_heard(measure: Measure, spoken: pa.Table) -> None:
    """The gate of BS.1770 passes over silence, so the loudness stays, while the share of speech falls."""
    speech = waveform_of(spoken, 4)
    pause = np.zeros(4 * SAMPLE_RATE)
    plain, before, after, between = measured(
        measure,
        spoken,
        speech,
        np.concatenate([pause, speech]),
        np.concatenate([speech, pause]),
        np.concatenate([speech, pause, speech]),
    )
    for row, times in ((before, 1), (after, 1), (between, 2)):
        samples = times * len(speech)
        expected = plain["speech_share"] * samples / (samples + len(pause))
        assert row["speech_share"] == pytest.approx(expected, abs=0.05)
        assert -SAMPLE_RATE // 4 < row["longest_silence_samples"] - len(pause) < SAMPLE_RATE
        assert row["loudness_lufs"] == pytest.approx(plain["loudness_lufs"], abs=0.2)
    assert plain["longest_silence_samples"] < 2 * SAMPLE_RATE


def test_noise_is_no_speech_and_quiet_speech_is(measure: Measure, spoken: pa.Table) -> None:
    speech = waveform_of(spoken, 4)
    noise = np.random.default_rng(0).normal(0, 0.02, 3 * SAMPLE_RATE)
    plain, of_noise, quiet = measured(measure, spoken, speech, noise, speech / 10)
    assert (of_noise["speech_share"], of_noise["longest_silence_samples"]) == (0, len(noise))
    assert quiet["speech_share"] == pytest.approx(plain["speech_share"], abs=0.05)
    assert quiet["loudness_lufs"] == pytest.approx(plain["loudness_lufs"] - 20, abs=0.05)


@pytest.mark.parametrize("dbfs", [-6.0, -20.0, -40.0])
def test_loudness_of_a_sine(dbfs: float) -> None:
    assert loudness(sine(dbfs, 5)) == pytest.approx(dbfs - 3.01, abs=0.1)


def test_loudness_is_gated() -> None:
    """EBU Tech 3341, cases 3 and 4, in one channel: what is 10 LU and more below the rest does not count."""
    quiet, softer, loud = sine(-36 + 3.01, 10), sine(-72 + 3.01, 10), sine(-23 + 3.01, 60)
    assert loudness(np.concatenate([quiet, loud, quiet])) == pytest.approx(-23, abs=0.1)
    assert loudness(np.concatenate([softer, quiet, loud, quiet, softer])) == pytest.approx(-23, abs=0.1)


def test_loudness_needs_a_block_and_a_sound() -> None:
    block = SAMPLE_RATE * 4 // 10
    assert loudness(sine(-20, 1)[: block - 1]) is None
    assert loudness(sine(-20, 1)[:block]) == pytest.approx(-23, abs=0.2)
    assert loudness(np.zeros(SAMPLE_RATE)) is None and loudness(sine(-75, 1)) is None


def test_the_text_is_the_reference_or_what_was_heard(measure: Measure, spoken: pa.Table) -> None:
    at = spoken.column_names.index("reference_text")
    references = pa.array(["A B c.", None, "", None, " "] + [None] * (len(spoken) - 5), pa.string())
    rows = spoken.set_column(at, spoken.schema.field("reference_text"), references).drop_columns(["transcripts"])
    keys = rows[KEY].to_pylist()
    texts = {0: "other words", 1: "yes yes yes yes", 2: "Thank you.", 4: "unheard"}
    heard = [sample("transcripts") | {KEY: keys[number], "text": text} for number, text in texts.items()]
    found = {
        row[KEY]: row
        for row in apply(measure, joined(rows, TRANSCRIPTS, table_of(heard, TRANSCRIPTS))).rows.to_pylist()
    }
    seconds = [samples / SAMPLE_RATE for samples in rows["num_samples"].to_pylist()]
    assert [found[key]["unique_word_share"] for key in keys[:5]] == [1.0, 0.25, 1.0, None, None]
    assert found[keys[2]]["chars_per_s"] == pytest.approx(10 / seconds[2], abs=1e-4)
    for number in (3, 4, 5):
        assert [found[keys[number]][name] for name in TEXT_SCORES] == [None] * 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("No, no; NO!", ["no"] * 3),
        ("considerations—particularly well-known", ["considerations", "particularly", "well", "known"]),
        ("Grüße, ÉTÉ", ["grüsse", "été"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("你好,世界 ok", ["你", "好", "世", "界", "ok"]),
        ("これは テスト", list("これはテスト")),
        ("…", []),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("yes yes yes yes yes yes yes yes yes yes yes yes", (0.0833, 3, 0.0, 1.0)),
        ("short mid reallyreallyreallyreallyreallyreallyreallylong", (1.0, 46, 8.2, 0.0)),
        ("I am hungry", (1.0, 6, 2.0, 0.0)),
        ("word", (1.0, 4, None, 0.0)),
        ("the cat sat on mats the cat sat on mats", (0.5, 4, 0.0, 1.0)),
        ("to be or not to be", (0.6667, 3, 0.5, 0.0)),
        ("one two three four five aaaaa one two three four five", (0.5455, 5, 0.0, 0.8837)),
        ("好", (1.0, 1, None, 0.0)),
        ("谢谢谢谢", (0.3333, 1, 0.0, 0.0)),
        ("好好好好好好", (0.2, 1, 0.0, 1.0)),
        ("我们 ok ok", (0.6667, 2, 0.0, 0.0)),
    ],
)
def test_repetition_of_known_texts(text: str, scores: tuple[Any, ...]) -> None:
    """The first two are the examples that come with Granary's rules."""
    assert tuple(repetition(words_of(text)).values()) == scores


HUMAN_RIGHTS = {
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と"
    "良心とを授けられており、互いに同胞の精神をもって行動しなければならない。すべて人は、人種、皮膚の色、性、言語、宗教、"
    "政治上その他の意見、国民的若しくは社会的出身、財産、門地その他の地位又はこれに類するいかなる事由による差別をも"
    "受けることなく、この宣言に掲げるすべての権利と自由とを享有することができる。",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกัน"
    "ด้วยเจตนารมณ์แห่งภราดรภาพ ทุกคนย่อมมีสิทธิและอิสรภาพบรรดาที่กำหนดไว้ในปฏิญญานี้ โดยปราศจากความแตกต่าง"
    "ไม่ว่าชนิดใด ๆ ดังเช่น เชื้อชาติ ผิว เพศ ภาษา ศาสนา ความคิดเห็นทางการเมืองหรือทางอื่น",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की "
    "देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
}
"""Beginnings of the Universal Declaration of Human Rights, some 10 to 30 s of speech."""


@pytest.mark.parametrize("language", HUMAN_RIGHTS)
def test_no_default_threshold_holds_back_a_language(language: str) -> None:
    limits, text = SpeechFilters(), HUMAN_RIGHTS[language]
    found, looping = repetition(words_of(text)), repetition(words_of(text[:9] * 12))
    assert found["unique_word_share"] > 0.7 > limits.min_unique_word_share > looping["unique_word_share"]
    assert found["repeated_share"] == 0 and looping["repeated_share"] > 0.9 > limits.max_repeated_share
    assert found["longest_word"] <= limits.max_longest_word


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=1, max_size=24))
def test_repeated_share_is_what_repeated_runs_cover(words: list[str]) -> None:
    def repeated(place: int) -> bool:
        starts = range(max(0, place - RUN_WORDS + 1), place + 1)
        runs = [words[start : start + RUN_WORDS] for start in range(len(words) - RUN_WORDS + 1)]
        return any(runs.count(runs[start]) > 1 for start in starts if start < len(runs))

    covered = sum(len(word) for place, word in enumerate(words) if repeated(place))
    assert repetition(words)["repeated_share"] == round(covered / sum(map(len, words)), 4)


BREAKS: dict[str, Callable[[list[str]], list[str]]] = {
    "its own": lambda words: words,
    "twice": lambda words: words * 2,
    "first half": lambda words: words[: -(-len(words) // 2)],
    "last three words": lambda words: words + words[-3:] * 5,
    "last word": lambda words: words + words[-1:] * 20,
}


def test_rows_dropped_of_broken_texts() -> None:
    """docs/FILTERS.md has these figures, of 210 texts of LibriSpeech (Panayotov et al. 2015, CC BY 4.0)."""
    _, *lines = (Path(__file__).parents[1] / "data" / "librispeech_texts.tsv").read_text(encoding="utf-8").splitlines()
    seconds = np.array([float(line.split("\t")[0]) for line in lines])
    texts = [line.split("\t")[1] for line in lines]
    (fence,) = RateFences.fit({("speech", "en"): np.array([len(text) for text in texts]) / seconds}).fences
    broken = {name: [" ".join(change(text.split())) for text in texts] for name, change in BREAKS.items()}
    others = np.random.default_rng(0).permutation(len(texts))
    found = {}
    for name, changed in (broken | {"another's": [texts[other] for other in others]}).items():
        rates = np.array([len(text) for text in changed]) / seconds
        scores = [repetition(words_of(text)) for text in changed]
        found[name] = (
            np.count_nonzero((rates < fence.low) | (rates > fence.high)),
            np.count_nonzero((rates < 3) | (rates > 40)),
            sum(score["unique_word_share"] < 0.4 for score in scores),
            sum(score["repeated_share"] > 0.3 for score in scores),
            sum(score["repeated_share"] > 0.15 for score in scores),
        )
    assert found == {
        "its own": (1, 0, 0, 0, 1),
        "another's": (110, 44, 0, 0, 1),
        "twice": (190, 0, 36, 206, 206),
        "first half": (58, 2, 0, 0, 0),
        "last three words": (125, 10, 30, 166, 210),
        "last word": (173, 30, 45, 192, 210),
    }


def test_the_detector_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Measure(MeasureParameters()).weight_digests() == {"vad": SILERO_VAD.sha256}
    other = EmbeddedFile(SILERO_VAD.package, SILERO_VAD.requirement, SILERO_VAD.path, "0" * 64)
    monkeypatch.setattr("echo_targets.transforms.models.asr.voice_activity.SILERO_VAD", other)
    with pytest.raises(ModelError, match=r"silero_vad_v6\.onnx has sha256 .* reinstall 'faster-whisper==1\.2\.1'"):
        Measure(MeasureParameters()).setup()


def test_no_rows(measure: Measure, spoken: pa.Table) -> None:
    assert apply(measure, spoken.slice(0, 0)).rows.schema.equals(MEASURES.schema)


def test_a_long_text_has_as_many_different_words_as_its_pieces() -> None:
    """Of five minutes of plain sentences few words are new, which is no sign of a loop; a loop inside them is found."""
    lines = (Path(nano_domain.__file__).parent / "nano_sentences.jsonl").read_text().splitlines()[:130]
    words = words_of(" ".join(json.loads(line)["text"] for line in lines))
    assert len(words) > 900
    share = repetition(words)["unique_word_share"]
    assert 0.5 < share == min(repetition(words[at : at + 100])["unique_word_share"] for at in range(len(words) - 99))
    looped = [*words[:400], *["thank", "you"] * 60, *words[400:]]
    assert repetition(looped)["unique_word_share"] == 0.02
    assert repetition(words[:100])["unique_word_share"] == round(len(set(words[:100])) / 100, 4)
