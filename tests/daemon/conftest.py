"""Logging is the process's: whoever sets it up puts it back."""

import logging
from collections.abc import Iterator

import pytest

_OF_THE_PROCESS = ("logThreads", "logProcesses", "logMultiprocessing", "_srcfile")


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Logging may be set up, and is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = {name: getattr(logging, name) for name in _OF_THE_PROCESS}
    yield
    root.handlers[:], root.level = handlers, level
    for name, value in before.items():
        setattr(logging, name, value)
