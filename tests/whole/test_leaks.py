"""After chaos everything is back where it was.

`python -m tests.torture --leaks 10000` asks more; so does CORTEXD_LEAK_REQUESTS=10000 here.
"""

import os
from pathlib import Path

import msgspec
import pytest
import trio

from tests.torture.leaks import Found, Look, run

REQUESTS = int(os.environ.get("CORTEXD_LEAK_REQUESTS", "2000"))
AT_REST = Look(open_reservations=0, in_flight=0, tasks=15, descriptors=14, resident_kb=40_000)


@pytest.mark.slow
async def test_after_cuts_on_both_sides_nothing_is_left_behind(tmp_path: Path) -> None:
    with trio.fail_after(60 + REQUESTS / 20):
        found = await run(tmp_path, REQUESTS, seed=20_261_124)
    assert found.requests >= REQUESTS
    assert found.answers < 0.9 * found.requests, "nobody left early"
    assert (found.end.open_reservations, found.end.in_flight) == (0, 0)
    assert found.problems == []


@pytest.mark.parametrize(
    "field", ["open_reservations", "in_flight", "tasks", "descriptors", "resident_kb"]
)
def test_whatever_has_grown_is_a_problem(field: str) -> None:
    grown = msgspec.structs.replace(AT_REST, **{field: 2 * getattr(AT_REST, field) + 1})
    assert Found(1, 1, AT_REST, AT_REST, AT_REST).problems == []
    assert len(Found(1, 1, AT_REST, AT_REST, grown).problems) == 1
