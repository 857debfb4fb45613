"""The benchmark works: a very small plan of each part gives a table of numbers."""

import re

import pytest

from tests.bench import contenders, targets
from tests.bench.__main__ import measure
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median_ratio, number, render

TINY = Plan(
    rounds=1,
    seconds=0.2,
    connections=(1, 2),
    stream_connections=(1,),
    paced_streams=(2,),
    stream_rounds=1,
    paced_seconds=0.2,
    starts=1,
    callers=(2,),
    entries=2_000,
    roll_seconds=1.2,
    fleets=((1, 1), (3, 10)),
    keys=(10,),
    neurons=(3,),
    models=(3,),
    bodies=(200, 256_000),
    ledgers=(10,),
)
NUMBER = r" +[\d.]+"
SLOWER_MS = 10  # by so much the disk of "cortexd, sync +10 ms" is slower


def measured(part: str) -> tuple[str, dict[str, float]]:
    """What one part says, and its figures."""
    said: list[str] = []
    figures = measure(TINY, [part], said.append)
    return "\n".join(said), figures


def row(name: str, cells: str, text: str) -> bool:
    """Whether there is a row with that name and cells of that kind."""
    return re.search(rf"^{re.escape(name)}{cells}$", text, re.MULTILINE) is not None


@pytest.mark.slow
def test_requests_through_everybody_become_a_table_for_each_number_of_connections() -> None:
    text, figures = measured("requests")
    assert row("cortexd", NUMBER * 5, text), text
    for other in ("cortexd, ledger in memory", "cortexd, sync +10 ms", contenders.NAIVE):
        assert row(other, rf"{NUMBER * 5}( +[\d.]+x){{2}}", text), text
    assert row("direct", rf"{NUMBER * 4}( +[\d.]+x){{2}}", text), text
    assert text.count("Plain chat requests") == len(TINY.connections)
    assert figures["rate_to_direct_2"] < 1
    assert figures["added_p50_us_1"] > 0
    assert figures["rate_to_slow_1"] > 0
    waited = re.findall(r"^cortexd, sync \+10 ms +[\d.]+ +[\d.]+ +([\d.]+)", text, re.MULTILINE)
    assert len(waited) == len(TINY.connections)
    assert all(float(p50_ms) >= SLOWER_MS for p50_ms in waited), "the slower disk is not waited for"


@pytest.mark.slow
def test_streams_as_fast_as_they_go_become_a_row_for_everybody() -> None:
    text, figures = measured("firehose")
    assert row("1, cortexd", NUMBER * 2, text), text
    assert row("1, direct", rf"{NUMBER * 2}( +[\d.]+x){{2}}", text), text
    assert figures["events_to_direct_1"] < 1
    assert figures["cpu_us_per_event_1"] > 0


@pytest.mark.slow
def test_paced_streams_become_rows_with_the_time_between_two_events() -> None:
    text, figures = measured("paced")
    cells = re.search(r"^cortexd( +[\d.]+%?){8}$", text, re.MULTILINE)
    assert cells is not None, text
    gap_p50_ms = float(cells[0].split()[6])
    assert 10 < gap_p50_ms < 40, "an event every 20 ms"
    assert figures["paced_rate_to_direct_2"] > 0.5
    assert figures["idle_mb"] > 10


@pytest.mark.slow
def test_what_grows_behind_a_request_becomes_a_row_for_each_size() -> None:
    text, figures = measured("growth")
    for name in ("10 keys", "3 neurons", "3 models", "256,000 bytes asked", "10 entries"):
        assert row(name, rf"{NUMBER * 2} +[\d.]+x{NUMBER * 3}", text), text
    assert figures["growth_bytes"] > 1
    assert figures["growth_entries"] == 1, "there is one size of ledger in this plan"


@pytest.mark.slow
def test_what_a_fleets_size_costs_becomes_a_table_with_a_column_for_each_size() -> None:
    text, figures = measured("fleet")
    assert re.search(r"^ +1x1 us +3x10 us +3x10 x$", text, re.MULTILINE), text
    assert re.search(r"^a request's turn .*( +[\d.]+){2} +[\d.]+x$", text, re.MULTILINE), text
    assert re.search(r"^GET /v1/models, 3x10( +[\d.]+){4}$", text, re.MULTILINE), text
    assert min(figures[name] for name in ("fleet_turn_us", "fleet_cold_us")) > 0
    assert figures["black_holes_models_p50_ms"] > 0


@pytest.mark.slow
def test_each_dialect_has_a_cost_per_event() -> None:
    text, figures = measured("translation")
    names = ("chat", "alias", "translated", "native", "responses")
    costs = [figures[f"{name}_us_per_event"] for name in names]
    assert all(0.1 < cost < 10_000 for cost in costs), costs
    assert row("chat, told as messages", rf"{NUMBER} +[\d.]+x", text), text


@pytest.mark.slow
@pytest.mark.parametrize("part", ["ledger", "sqlite", "rolls", "opening", "start"])
def test_a_part_on_the_ledger_or_the_start_gives_numbers_and_no_zero(part: str) -> None:
    text, figures = measured(part)
    assert text
    assert [name for name, figure in figures.items() if figure <= 0] in ([], ["rolls"])


def test_who_is_left_out_is_named_with_what_would_change_that() -> None:
    assert any("PEERS=1" in line for line in contenders.absent(with_peers=False))
    assert not any("PEERS=1" in line for line in contenders.absent(with_peers=True))


def test_a_target_is_judged_only_where_its_figure_was_measured() -> None:
    table = targets.judged({"idle_mb": 90})
    assert [cells[1:] for cells in table.rows] == [("90.0", "<= 45.0", "missed 2.00x")]
    assert targets.far_off({"idle_mb": 90}) == [table.rows[0][0]]
    assert targets.far_off({"idle_mb": 50}) == []


def test_a_table_has_its_numbers_under_their_columns_and_its_notes_below() -> None:
    section = Section((Table("Title", ("", "n"), (("a", "1"), ("bc", "22")), ("note",)),), {})
    assert render(section.tables[0]) == "Title\n     n\n--  --\na    1\nbc  22\n  note"


def test_a_ratio_to_nothing_is_no_number_and_does_not_hide_the_other_rounds() -> None:
    assert median_ratio([4, 9, 6], [2, 0, 2]) == 2.5
    assert number(median_ratio([1], [0])) == "-"
