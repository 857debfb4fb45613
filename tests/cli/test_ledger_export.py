"""`cortexd ledger export`: what is in the journal, in three formats, and only what was asked."""

import csv
import datetime
import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cortexd.cli.ledger_export import Row, row_of, table_row
from cortexd.cli.main import main
from cortexd.ledger.cap_windows import calendar
from cortexd.ledger.entries import (
    CloseEntry,
    DropEntry,
    Entry,
    LearnEntry,
    MarkEntry,
    ModelLabel,
    ReservationId,
    RollEntry,
    limit_id,
)
from cortexd.ledger.reading import Line
from tests.cli.ledgers import ACCOUNT, CAPS, KEY, Daemon, damage, ledger_with_a_past
from tests.ledger.workbench import commit

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    ledger_with_a_past(tmp_path)
    return tmp_path


def export(directory: Path, capsys: Capture, *more: str, code: int = 0) -> str:
    assert main(["ledger", "export", "--directory", str(directory), *more]) == code
    return capsys.readouterr().out


def rows(
    directory: Path, capsys: Capture, *more: str, code: int = 0
) -> Sequence[Mapping[str, Any]]:
    out = export(directory, capsys, "--format", "json", *more, code=code)
    return [json.loads(line) for line in out.splitlines()]


def requests(found: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    return [row["request_id"] for row in found if row["kind"] == kind]


# Formats


def test_every_entry_is_a_line_of_json_in_order(ledger: Path, capsys: Capture) -> None:
    found = rows(ledger, capsys)
    assert [row["n"] for row in found] == list(range(1, 18))
    assert [row["time"] for row in found] == sorted(row["time"] for row in found)
    assert requests(found, "hold") == ["a", "b", "c", "lost", "d", "open"]
    assert requests(found, "close") == ["a", "b", "c", "d"]
    assert requests(found, "ghost") == ["lost"]


def test_a_close_carries_what_was_reserved_also_in_another_segment(
    ledger: Path, capsys: Capture
) -> None:
    [close] = [row for row in rows(ledger, capsys) if row["kind"] == "close"][1:2]
    del close["n"], close["time"]
    assert close == {
        "kind": "close",
        "reservation": 2,
        "request_id": "b",
        "account": "acme",
        "key": "ci bot",
        "scopes": [ACCOUNT, KEY],
        "reserved": 100,
        "charged": 3,
        "prompt": 1,
        "completion": 2,
        "why": "settle",
    }


def test_caps_and_ghosts_say_what_they_are(ledger: Path, capsys: Capture) -> None:
    found = rows(ledger, capsys)
    limits = {row["limit"]: row for row in found if row["kind"] == "limit"}
    rolling = limits["key:ci%20bot/tok/rolling:3600000"]
    assert (rolling["hard_cap"], rolling["unit"], rolling["key"]) == (5_000, "tok", "ci bot")
    assert limits["key:nightly/tok/balance"]["shadow"] is True
    assert limits["acct:acme/tok/calendar:day:Europe/Berlin"]["until"].startswith("20")
    [ghost] = [row for row in found if row["kind"] == "ghost"]
    made, until = (datetime.datetime.fromisoformat(ghost[field]) for field in ("time", "until"))
    assert until - made == datetime.timedelta(seconds=60)


def test_json_is_asked_for_as_of_any_other_verb(ledger: Path, capsys: Capture) -> None:
    assert export(ledger, capsys, "--json") == export(ledger, capsys, "--format", "json")
    assert main(["ledger", "export", "--json", "--format", "csv"]) == 2


def test_csv_has_the_same_with_a_heading(ledger: Path, capsys: Capture) -> None:
    table = list(csv.DictReader(io.StringIO(export(ledger, capsys, "--format", "csv"))))
    assert tuple(table[0]) == Row.__struct_fields__
    for line, row in zip(table, rows(ledger, capsys), strict=True):
        words = {name: str(value) for name, value in row.items()}
        if "scopes" in row:
            words["scopes"] = " ".join(row["scopes"])
        assert {name: value for name, value in line.items() if value} == words


def test_the_table_has_a_line_per_entry_that_is_aligned_with_its_heading(
    ledger: Path, capsys: Capture
) -> None:
    heading, *lines = export(ledger, capsys).splitlines()
    assert heading.split() == (
        ["ENTRY", "TIME", "KIND", "NUMBER", "RESERVED", "CHARGED", "WHY", "CONCERNS"]
    )
    assert len(lines) == 17
    [settled] = [line for line in lines if line.endswith(f"{ACCOUNT} {KEY} a") and "close" in line]
    assert settled.split()[2:7] == ["close", "1", "100", "30", "settle"]
    for word, value in (("RESERVED", "100"), ("CHARGED", "30")):
        end = heading.index(word) + len(word)
        assert settled[:end].endswith(" " + value)
    assert settled[heading.index("WHY") :].startswith("settle")


DAY = limit_id(KEY, calendar("day", "UTC"))
DAY_SHOWN = {"key": "ci bot", "scopes": (KEY,), "limit": DAY}


@pytest.mark.parametrize(
    ("entry", "columns", "concerns"),
    [
        (
            RollEntry(1_000, DAY, g=500, e=2_000, r=4_000),
            {"kind": "roll", "until": "1970-01-01T00:00:02.000Z", **DAY_SHOWN},
            f"{DAY} until=1970-01-01T00:00:02.000Z",
        ),
        (DropEntry(1_000, DAY), {"kind": "drop", **DAY_SHOWN}, DAY),
        (
            LearnEntry(1_000, ModelLabel("org/m"), 9),
            {"kind": "learn", "model": "org/m", "template_tokens": 9},
            "org/m template_tokens=9",
        ),
        (
            CloseEntry(1_000, ReservationId(7), 5, "abort"),
            {
                "kind": "close",
                "reservation": 7,
                "charged": 5,
                "why": "abort",
                "prompt": 0,
                "completion": 0,
            },
            "abort",
        ),
        (MarkEntry(1_000), {"kind": "mark"}, "mark"),
    ],
)
def test_the_rarer_entries_have_their_columns_too(
    entry: Entry, columns: Mapping[str, object], concerns: str
) -> None:
    """Of the close, nobody knows the hold: an earlier segment was damaged."""
    row = row_of(Line(3, entry, None))
    shown = {"n": 3, "time": "1970-01-01T00:00:01.000Z", **columns}
    assert msgspec.to_builtins(row) == shown
    assert table_row(row).endswith(concerns)


def test_dropped_caps_and_marks_are_picked_out_with_their_key(
    ledger: Path, capsys: Capture
) -> None:
    daemon = Daemon(ledger, caps=())
    commit(daemon.journal, daemon.journal.accounts.mark(daemon.journal.clock.now_ms()))
    daemon.end()
    dropped = [row for row in rows(ledger, capsys) if row["kind"] == "drop"]
    assert len(dropped) == len(CAPS)
    assert rows(ledger, capsys)[-1]["kind"] == "mark"
    kinds = {row["kind"] for row in rows(ledger, capsys, "--key", "nightly")}
    assert kinds == {"limit", "drop", "hold", "close"}


def test_the_columns_are_those_of_the_manual() -> None:
    told = (ROOT / "cortexd" / "manual" / "ledger.md").read_text()
    cells = re.findall(r"^\| (`[^|]*) \|", told, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == list(Row.__struct_fields__)


# Filters


def test_a_key_or_an_account_is_picked_out(ledger: Path, capsys: Capture) -> None:
    assert requests(rows(ledger, capsys, "--key", "nightly"), "hold") == ["c"]
    assert requests(rows(ledger, capsys, "--key", "nightly"), "close") == ["c"]
    assert requests(rows(ledger, capsys, "--key", "ci bot"), "ghost") == ["lost"]
    found = rows(ledger, capsys, "--account", "acme")
    assert requests(found, "hold") == ["a", "b", "c", "lost", "d", "open"]
    limits = [row["limit"] for row in rows(ledger, capsys, "--key", "nightly") if "limit" in row]
    assert limits == ["key:nightly/tok/balance"]
    assert len(rows(ledger, capsys, "--account", "acme", "--key", "nightly")) == 2
    assert rows(ledger, capsys, "--key", "nobody") == []


def test_a_span_is_from_its_beginning_up_to_but_without_its_end(
    ledger: Path, capsys: Capture
) -> None:
    every = rows(ledger, capsys)
    cut = every[9]["time"]
    assert rows(ledger, capsys, "--since", cut) == [row for row in every if row["time"] >= cut]
    assert rows(ledger, capsys, "--until", cut) == [row for row in every if row["time"] < cut]
    assert rows(ledger, capsys, "--since", "1h") == every
    assert rows(ledger, capsys, "--until", "1h") == []
    assert rows(ledger, capsys, "--since", "2999-01-01") == []
    assert rows(ledger, capsys, "--since", "1900-01-01", "--until", "0s")[:10] == every[:10]


def test_a_time_without_a_zone_is_the_hosts_and_the_answer_says_which(
    ledger: Path, capsys: Capture
) -> None:
    main(["ledger", "export", "--directory", str(ledger), "--since", "2026-01-02T03:04"])
    local = datetime.datetime(2026, 1, 2, 3, 4).astimezone()
    utc = local.astimezone(datetime.UTC)
    assert capsys.readouterr().err == (
        f"since {utc:%Y-%m-%dT%H:%M}:00.000Z (2026-01-02 03:04:00 {local.tzname()})\n"
    )


@pytest.mark.parametrize("wrong", ["yesterday", "24", "2026-13-01", "-1h", "", "99999999999d"])
def test_a_moment_that_is_none_is_wrong_usage(ledger: Path, capsys: Capture, wrong: str) -> None:
    assert main(["ledger", "export", "--directory", str(ledger), f"--since={wrong}"]) == 2
    assert "is no date, time or duration" in capsys.readouterr().err


# Damage, and readers that leave


def test_what_can_be_read_is_exported_and_the_rest_is_told(ledger: Path, capsys: Capture) -> None:
    file, line, offset = damage(ledger, segment=1)
    arguments = ["ledger", "export", "--directory", str(ledger), "--format", "json"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert f"{file}: line {line} (byte {offset}): damage" in captured.err
    found = [json.loads(each) for each in captured.out.splitlines()]
    assert requests(found, "hold") == ["c", "lost", "d", "open"]
    assert requests(found, "close") == ["b", "c", "d"], "the snapshot knows what b reserved"


def test_a_ledger_whose_newest_header_is_damaged_is_exported_as_far_as_it_goes(
    ledger: Path, capsys: Capture
) -> None:
    (ledger / "seg-00000003.jsonl").write_bytes(b"\0" * 100)
    found = rows(ledger, capsys, "--since", "1h", code=1)
    assert requests(found, "hold") == ["a", "b", "c", "lost"]


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_reader_that_leaves_ends_it_quietly(ledger: Path, form: str) -> None:
    """As in `cortexd ledger export | head -1`, with more than a pipe can hold."""
    daemon = Daemon(ledger, caps=())
    for number in range(600):
        daemon.settle(daemon.reserve(f"more-{number}"))
    daemon.end()
    command = [sys.executable, "-m", "cortexd", "ledger", "export", "--format", form]
    command += ["--directory", str(ledger)]
    exporting = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert exporting.stdout is not None
    assert exporting.stderr is not None
    with exporting.stdout, exporting.stderr:
        assert exporting.stdout.readline()
        exporting.stdout.close()
        assert exporting.stderr.read() == ""
    assert exporting.wait() in (0, 1)
