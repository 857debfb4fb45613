"""Settings for all tests."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from cortexd.deadlines import Deadlines, watched_deadlines

# What an example takes says more about the machine than about the code.
settings.register_profile("cortexd", deadline=None)
settings.register_profile("release", deadline=None, max_examples=100_000)
settings.load_profile("cortexd")

# A shell without job control starts what it puts in the background with Ctrl-C ignored, and so
# would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_HERE = Path(__file__).parent
_ONE_GROUP = ("sim", "installed")
"""Folders whose tests share something that is dear to make."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run on several cores, those of a file stay together, as their fixtures do."""
    for item in items:
        path = item.path.relative_to(_HERE)
        group = path.parts[0] if path.parts[0] in _ONE_GROUP else path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
async def deadlines() -> AsyncIterator[Deadlines]:
    """Deadlines that are watched during the test."""
    async with watched_deadlines() as deadlines:
        yield deadlines
