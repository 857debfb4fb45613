"""The benchmark works: its smallest part gives a table of numbers."""

import re

import msgspec
import pytest

from tests.bench.__main__ import measure
from tests.bench.plan import QUICK

TINY = msgspec.structs.replace(
    QUICK, rounds=1, seconds=0.2, connections=(2,), fleets=((1, 1), (3, 10))
)


@pytest.mark.slow
def test_requests_through_the_whole_path_become_a_table_of_numbers() -> None:
    said: list[str] = []
    figures = measure(TINY, ["requests"], said.append)
    row = re.search(r"^2( +[\d.]+x?){8}$", "\n".join(said), re.MULTILINE)
    assert row is not None, said
    assert "0.00" not in row[0].split()[:6], row[0]
    assert figures["rate_to_direct_2"] < 1


@pytest.mark.slow
def test_what_a_fleets_size_costs_becomes_a_table_with_a_column_for_each_size() -> None:
    said: list[str] = []
    figures = measure(TINY, ["fleet"], said.append)
    text = "\n".join(said)
    assert re.search(r"^ +1x1 us +3x10 us +3x10 x$", text, re.MULTILINE), said
    assert re.search(r"^a request's turn .*( +[\d.]+){2} +[\d.]+x$", text, re.MULTILINE), said
    assert re.search(r"^GET /v1/models, 3x10( +[\d.]+){4}$", text, re.MULTILINE), said
    assert min(figures[name] for name in ("fleet_turn_us", "fleet_cold_us")) > 0
    assert figures["black_holes_models_p50_ms"] > 0
