"""What CI sees of a check: its levels, its formats, and what only decoding and the tokenizer can tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from echo_targets.jobs.checking.findings import github, json_line, junit, show, text
from echo_targets.jobs.commands.check import Format, Level, check_command
from echo_targets.schemas import UTTERANCES
from echo_targets.schemas.dataset.check import Finding
from echo_targets.schemas.dataset.contract import contract_of
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.audio.waveforms import Audio, encode_flac, with_waveforms
from echo_targets.transforms.base import table_of
from echo_targets.transforms.stages.tokenize import Tokenize, TokenizeParameters
from tests.schemas.samples import Root, Row, num_samples, sample, samples

ODD = Finding("units", "part-0", "units_range", "100% wrong:\r\nsee, above", "a\x00<b>&:,", "units = [1]")
REMARK = Finding("training/echo", "-", "compatible", "column mood is new", breaks=False)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path / "root")
    root.put("utterances", samples("utterances", 3))
    root.put("units", samples("units", 3))
    return root


# -- formats ---------------------------------------------------------------------------------------------------------


def test_a_finding_is_one_line() -> None:
    for line in (text, json_line, github):
        assert len(line(ODD, "out/calls").splitlines()) == 1 or (line is text and "\x00" in line(ODD, ""))
    assert json.loads(json_line(ODD, None)) == {
        "table": "units",
        "shard": "part-0",
        "rule": "units_range",
        "message": "100% wrong:\r\nsee, above",
        "row": "a\x00<b>&:,",
        "value": "units = [1]",
        "breaks": True,
    }


def test_github_reads_what_was_meant() -> None:
    said = github(replace(ODD, row="a"), "out/a:b,c")
    assert said == (
        "::error file=out/a%3Ab%2Cc,title=units%3A units_range::"
        "units part-0 row a: units_range: 100%25 wrong:\\r\\nsee, above: units = [1]"
    )
    assert github(REMARK, None).startswith("::notice file=schemas/contract/training/echo.json,title=training/echo%3A ")


def test_junit_is_xml_whatever_a_key_holds() -> None:
    suite = ElementTree.fromstring(junit([ODD, REMARK], "out/calls").encode())
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    broken, remark = suite
    assert broken.get("classname") == "units" and "a\\x00<b>&:," in str(broken.get("name"))
    assert "100% wrong" in str(broken.findtext("failure")) and remark.find("failure") is None
    (passed,) = ElementTree.fromstring(junit([], None))
    assert passed.tag == "testcase" and len(passed) == 0


@pytest.mark.parametrize("style", ["text", "json", "github", "junit"])
def test_only_what_breaks_is_counted(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(iter([ODD, REMARK, ODD]), style, "out") == 2
    assert capsys.readouterr().out.count("mood") == 1


@pytest.mark.parametrize("style", ["json", "github", "junit"])
def test_what_a_program_reads_has_nothing_else_in_it(
    root: Root, style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_command(str(root.folder), format=Format(style)) == 0
    said = capsys.readouterr()
    assert "2 tables, 2 shards, 6 rows, no problems found" in said.err
    assert said.out == "" if style != "junit" else ElementTree.fromstring(said.out.encode()).get("failures") == "0"


# -- levels and --against --------------------------------------------------------------------------------------------


def test_metadata_reads_no_rows_and_rows_do(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.put("units", [sample("units") | {"durations": [1, 1, 1]}, *samples("units", 2, first=1)])
    assert (
        check_command(str(root.folder), level=Level.METADATA)
        == check_command(str(root.file("units")), level=Level.METADATA)
        == 0
    )
    assert check_command(str(root.folder)) == check_command(str(root.file("units"))) == 1
    assert "row utt-00000: durations_sum: " in capsys.readouterr().out


def test_against_a_contract_beside_the_rows(root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = tmp_path / "utterances.json"
    contract.write_text(contract_of(UTTERANCES).to_json().replace("int8", "int64"))
    assert check_command(str(root.folder), against=str(contract)) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "utterances: breaking: column channel was int64 not null and is int8 not null",
        f"utterances: schema_version: schema_version is {UTTERANCES.version}; a breaking change requires 4.0.0",
    ]
    assert check_command(None, against=str(root.folder)) == 0


def test_nothing_to_check_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--against"):
        check_command(None)
    with pytest.raises(UserError, match=str(tmp_path)):
        check_command(None, against=str(tmp_path))


def test_ctrl_c_is_130(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("echo_targets.jobs.commands.check.check_dataset", stop)
    assert check_command(str(root.folder)) == 130


# -- deep ------------------------------------------------------------------------------------------------------------


def heard(number: int) -> Row:
    """An utterance of noise, with the digest of its samples."""
    pcm = np.random.default_rng(number).integers(-9_000, 9_000, num_samples(number)).astype(np.int16)
    named = {"bytes": encode_flac(pcm), "path": f"{number}.flac"}
    return sample("utterances", number) | {"audio": named, "audio_sha256": Audio(pcm, 16_000).sha256}


def test_what_only_decoding_and_tokenizing_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    utterances = [heard(number) for number in range(8)]
    tokenize = Tokenize(TokenizeParameters())
    tokenize.setup()
    units = tokenize(with_waveforms(table_of(utterances, UTTERANCES))).rows.to_pylist()
    root = Root(tmp_path)

    def found() -> set[tuple[str, str, str]]:
        training = [
            {name: row[name] for name in ("audio", "num_samples")} | made
            for row, made in zip(utterances, audio_of_training, strict=True)
        ]
        root.put("utterances", utterances[:4], utterances[4:])
        made_by = {"stage": "tokenize", "version": tokenize.version, "weights": tokenize.weight_digests()}
        weights = {f"weights.{name}": digest for name, digest in tokenize.weight_digests().items()}
        root.put("units", units[:4], units[4:], of=made_by, **weights)
        rows = [sample("training/s2t", number) | row for number, row in enumerate(training)]
        root.put("training/s2t", rows[:4], rows[4:])
        code = check_command(str(tmp_path), level=Level.DEEP, format=Format.JSON)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert code == (1 if lines else 0)
        return {(line["table"], line["row"][-1], line["rule"]) for line in lines}

    audio_of_training: list[Row] = [{} for _ in utterances]
    assert found() == set(), "a valid root passes to the bottom"
    assert check_command(str(root.file("utterances", 0, 2)), level=Level.DEEP) == 0
    capsys.readouterr()

    whole = utterances[2]["audio"]["bytes"]
    other = {"audio": heard(50)["audio"]}  # of the same length as number 0
    utterances[0] |= other
    utterances[1] |= {"audio": {"bytes": None, "path": "1.flac"}}
    utterances[2] |= {"audio": {"bytes": whole[: len(whole) // 2], "path": "2.flac"}}
    utterances[3] |= {"audio_sha256": bytes(32)}
    utterances[4] |= {"num_samples": num_samples(4) - 1}
    units[5] |= {"codebook_size": 101}
    audio_of_training[6] |= other
    units[7] |= {"units": [[1]], "durations": [units[7]["num_frames"]]}
    assert found() == {
        ("utterances", "0", "audio_sha256"),
        ("utterances", "1", "audio_decodes"),
        ("utterances", "2", "audio_decodes"),
        ("utterances", "3", "audio_sha256"),
        ("utterances", "4", "audio_length"),
        ("units", "0", "units_recomputed"),
        ("units", "5", "units_recomputed"),
        ("training/s2t", "6", "audio_agrees"),
        ("units", "7", "units_recomputed"),
    }
    assert check_command(str(root.file("utterances", 0, 2)), level=Level.DEEP) == 1


def test_units_of_an_unknown_tokenizer_are_a_remark(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_command(str(root.folder), level=Level.DEEP) == 1  # the samples' audio is none
    assert "units: units_recomputed: no units were recomputed" in capsys.readouterr().out
