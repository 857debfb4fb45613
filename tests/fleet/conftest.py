"""What the tests of the fleet share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from cortexd.deadlines import Deadlines
from cortexd.fleet.pool import Pool


@pytest.fixture
async def pool(deadlines: Deadlines) -> AsyncIterator[Pool]:
    """A pool of plain connections, closed after the test."""
    async with aclosing(Pool(deadlines, 3)) as pool:
        yield pool
