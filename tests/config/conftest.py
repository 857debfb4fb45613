"""Fixtures of the configuration's tests."""

from pathlib import Path

import pytest

from tests.config.loading import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder for one test's configuration."""
    return Folder(tmp_path)
