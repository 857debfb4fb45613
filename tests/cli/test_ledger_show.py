"""`cortexd ledger show`: the books as the newest segment leaves them, as text and as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cortexd.cli.ledger_directory import iso
from cortexd.cli.ledger_words import WindowWords, scope_name
from cortexd.cli.main import main
from cortexd.ledger.cap_windows import BALANCE, HELD, CapWindow, calendar, fixed, rolling
from cortexd.ledger.entries import ANONYMOUS, account_scope, key_scope
from tests.cli.ledgers import ACCOUNT, KEY, Daemon, ledger_with_a_past

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    ledger_with_a_past(tmp_path)
    return tmp_path


def show_json(directory: Path, capsys: Capture) -> Mapping[str, Any]:
    assert main(["ledger", "show", "--directory", str(directory), "--json"]) == 0
    shown: Mapping[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def cells(lines: Sequence[str], title: str) -> list[list[str]]:
    """The words of each row of one table, its heading first."""
    at = next(i for i, line in enumerate(lines) if line.startswith(title))
    rows = lines[at + 1 :]
    end = rows.index("") if "" in rows else len(rows)
    return [row.split() for row in rows[:end]]


def test_every_cap_is_shown_with_its_unit_and_window(ledger: Path, capsys: Capture) -> None:
    assert main(["ledger", "show", "--directory", str(ledger)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{ledger}: segment 3, entry 17 at 20")
    spent, reserved = 30 + 3 + 7 + 11, 500 + 77
    table = cells(lines, "caps")
    assert " ".join(table[0]) == "FOR ID COUNTS WINDOW HARD CAP SPENT RESERVED AVAILABLE"
    assert [" ".join(row) for row in table[1:]] == [
        f"account acme tokens balance 100000 {spent} {reserved} {100_000 - spent - reserved}",
        f"account acme tokens day Europe/Berlin 90000 {spent} {reserved} "
        f"{90_000 - spent - reserved}",
        "key ci bot in flight now 4 0 2 2",
        "key ci bot requests rolling 60 s 60 5 0 55",
        f"key ci bot tokens rolling 3600 s 5000 {spent - 7} {reserved} "
        f"{5_000 - spent + 7 - reserved}",
        "key nightly tokens, shadow balance 7 7 0 0",
    ]


def test_open_and_unresolved_reservations_and_totals_are_shown(
    ledger: Path, capsys: Capture
) -> None:
    assert main(["ledger", "show", "--directory", str(ledger)]) == 0
    lines = capsys.readouterr().out.splitlines()
    [_, alive] = cells(lines, "open reservations: 1, 77 tokens")
    [heading, ghost] = cells(lines, "unresolved reservations: 1, 500 tokens")
    assert alive[:3] == ["open", ACCOUNT, KEY]
    assert (alive[-2:], ghost[-2:]) == (["s", "77"], ["s", "500"])
    assert ghost[:3] == ["lost", ACCOUNT, KEY]
    assert "CHARGED" in heading
    assert cells(lines, "totals")[1:] == [
        ["account", "acme", "6", "51", "19", "32", "0", "0"],
        ["key", "ci", "bot", "5", "44", "16", "28", "0", "0"],
        ["key", "nightly", "1", "7", "3", "4", "0", "0"],
    ]


def test_json_has_the_same(ledger: Path, capsys: Capture) -> None:
    shown = show_json(ledger, capsys)
    assert (shown["segment"], shown["entry"], shown["directory"]) == (3, 17, str(ledger))
    caps = {
        (cap["kind"], cap["id"], cap["unit"], cap["window"]["kind"]): cap for cap in shown["caps"]
    }
    assert len(caps) == 6
    cap = caps["key", "ci bot", "tokens", "rolling"]
    assert cap["window"] == {"kind": "rolling", "ms": 3_600_000}
    assert (cap["hard_cap"], cap["spent"], cap["reserved"], cap["available"]) == (
        *(5_000, 44, 577),
        4_379,
    )
    assert caps["account", "acme", "tokens", "calendar"]["window"] == {
        "kind": "calendar",
        "period": "day",
        "time_zone": "Europe/Berlin",
    }
    assert caps["key", "nightly", "tokens", "balance"]["shadow"] is True
    [alive], [ghost] = shown["open"], shown["unresolved"]
    assert (alive["request_id"], alive["tokens"], alive["charged_at"]) == ("open", 77, None)
    assert (ghost["request_id"], ghost["scopes"]) == ("lost", [ACCOUNT, KEY])
    assert ghost["since"] < alive["since"] < ghost["charged_at"]
    assert 0 <= alive["age_seconds"] <= ghost["age_seconds"]
    assert shown["totals"][0]["tokens"] == 51


def test_a_live_ledger_is_shown_as_it_is(ledger: Path, capsys: Capture) -> None:
    daemon = Daemon(ledger)
    reservation = daemon.reserve("now", 40)
    assert [row["request_id"] for row in show_json(ledger, capsys)["open"]] == ["now"]
    daemon.settle(reservation)
    assert show_json(ledger, capsys)["open"] == []
    daemon.end()


def test_an_empty_ledger_has_no_rows(tmp_path: Path, capsys: Capture) -> None:
    daemon = Daemon(tmp_path)
    daemon.end()
    assert main(["ledger", "show", "--directory", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "open reservations: 0, 0 tokens" in out
    assert show_json(tmp_path, capsys)["totals"] == []


# Words


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (BALANCE, "balance"),
        (HELD, "now"),
        (rolling(3_600_000), "rolling 3600 s"),
        (rolling(1_500), "rolling 1.500 s"),
        (fixed(60_000), "fixed 60 s"),
        (calendar("week", "Asia/Tokyo"), "week Asia/Tokyo"),
    ],
)
def test_a_window_in_words(window: CapWindow, words: str) -> None:
    assert str(WindowWords.of(window)) == words


def test_a_scope_in_words() -> None:
    assert scope_name(key_scope("ci bot")) == ("key", "ci bot")
    assert scope_name(account_scope("Müller")) == ("account", "Müller")
    assert scope_name(ANONYMOUS) == ("anonymous", "")
    assert scope_name(key_scope("a\x1b[31m")) == ("key", "a%1B%5B31m")


def test_a_moment_is_told_in_utc() -> None:
    assert iso(1_763_900_000_123) == "2025-11-23T12:13:20.123Z"
    assert iso(2**53 - 1).startswith("@")
