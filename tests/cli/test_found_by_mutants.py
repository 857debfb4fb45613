"""What only mutants noticed of the answers of `cortexd ledger`."""

import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortexd.cli.ledger_export import moment
from cortexd.cli.main import main
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.clock import system_time
from cortexd.ledger.entries import Cap
from tests.cli.ledgers import KEY, Daemon


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host nine hours ahead of UTC."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_a_moment_without_a_zone_is_one_of_the_host() -> None:
    there = moment("2026-01-02T03:04")
    assert isinstance(there, datetime.datetime)
    assert there.astimezone(datetime.UTC).isoformat() == "2026-01-01T18:04:00+00:00"
    said = moment("2026-01-02T03:04Z")
    assert isinstance(said, datetime.datetime)
    assert said.astimezone(datetime.UTC).isoformat() == "2026-01-02T03:04:00+00:00"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7s", 7), ("7m", 420), ("7h", 25_200), ("7d", 604_800), ("2w", 1_209_600)],
)
def test_how_long_ago_has_five_units(text: str, seconds: int) -> None:
    assert moment(text) == datetime.timedelta(seconds=seconds)


def test_what_left_a_window_since_the_last_entry_is_not_shown_as_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon(tmp_path, [Cap(KEY, 5_000, rolling(5))])
    daemon.settle(daemon.reserve("a"))
    daemon.end()
    now_ms = system_time().boottime_ms
    settled_ms = now_ms()
    while now_ms() < settled_ms + 10:
        pass
    assert main(["ledger", "show", "--json", "--directory", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [cap["spent"] for cap in shown["caps"]] == [0]
    assert shown["totals"][0]["tokens"] == 30
