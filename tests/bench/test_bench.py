"""The benchmark works: its smallest part gives a table of numbers."""

import re

import msgspec
import pytest

from tests.bench.__main__ import measure
from tests.bench.plan import QUICK

TINY = msgspec.structs.replace(QUICK, rounds=1, seconds=0.2, connections=(2,))


@pytest.mark.slow
def test_requests_through_the_whole_path_become_a_table_of_numbers() -> None:
    said: list[str] = []
    figures = measure(TINY, ["requests"], said.append)
    row = re.search(r"^2( +[\d.]+x?){8}$", "\n".join(said), re.MULTILINE)
    assert row is not None, said
    assert "0.00" not in row[0].split()[:6], row[0]
    assert figures["rate_to_direct_2"] < 1
