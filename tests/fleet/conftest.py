"""What the tests of the fleet share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cortexd.fleet.pool import Pool


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """A pool of plain connections, closed after the test."""
    pool = Pool(3)
    yield pool
    await pool.aclose()
