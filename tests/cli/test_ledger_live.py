"""`cortexd ledger` beside a process that spends as fast as it can, and that is killed at last.

It rolls every 40 kB, so segments begin, and lines are half written, while they are read. What it
tells fills a pipe, at which it waits for the test: it gets no further ahead than that.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cortexd.cli.main import main

ROUNDS = 5
LINES_PER_ROUND = 150
ROLLS_MIN = 3
SECONDS_MAX = 60


@pytest.fixture
def spending(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The process, told to begin."""
    command = [sys.executable, "-m", "tests.cli.busy_ledger", str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
    yield process
    process.kill()
    process.stdout.close()
    process.wait()


def read_told(process: "subprocess.Popen[bytes]", lines: int) -> list[bytes]:
    """At least so many more facts that the process was told by its ledger."""
    assert process.stdout is not None
    told = b""
    while told.count(b"\n") < lines:
        ready, _, _ = select.select([process.stdout], [], [], SECONDS_MAX)
        assert ready, "the process tells nothing"
        piece = os.read(process.stdout.fileno(), 65_536)
        assert piece, "the process ended by itself"
        told += piece
    return told.splitlines()


def answer(question: str, directory: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["ledger", question, "--directory", str(directory), *more]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_ledger_under_load_is_sound_at_every_moment_and_after_the_kill(
    spending: "subprocess.Popen[bytes]", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries: list[int] = []
    granted: set[str] = set()
    for _ in range(ROUNDS):
        told = read_told(spending, LINES_PER_ROUND)
        granted |= {line.split()[1].decode() for line in told if line.startswith(b"granted")}
        report = json.loads(answer("verify", tmp_path, capsys, "--json"))
        assert report["findings"] == []
        entries.append(report["entry_count"])
        shown: dict[str, Any] = json.loads(answer("show", tmp_path, capsys, "--json"))
        assert shown["entry"] >= report["entries"][1]
        for cap in shown["caps"]:
            assert cap["spent"] + cap["reserved"] <= cap["hard_cap"]
        lines = answer("export", tmp_path, capsys, "--format", "json").splitlines()
        exported = [json.loads(line) for line in lines]
        assert [row["n"] for row in exported] == list(range(1, len(exported) + 1))
        assert granted <= {row["request_id"] for row in exported if row["kind"] == "hold"}
    assert entries == sorted(set(entries)), "it did not go on meanwhile"
    for _ in range(ROUNDS * 4):
        if json.loads(answer("verify", tmp_path, capsys, "--json"))["segments"][1] > ROLLS_MIN:
            break
        read_told(spending, LINES_PER_ROUND)
    spending.kill()
    spending.wait()
    report = json.loads(answer("verify", tmp_path, capsys, "--json"))
    assert report["findings"] == []
    assert report["segments"][1] > ROLLS_MIN, "it hardly rolled"
    assert report["closes"] > ROUNDS * LINES_PER_ROUND / 4
