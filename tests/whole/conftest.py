"""What is fetched or made once for all tests of this folder."""

import os
from pathlib import Path

import pytest

from tests.engines.real_engine import ArchiveUnreachable, fetched_engine, write_models


@pytest.fixture(scope="session")
def llama_server_program() -> Path:
    """The start script of a real llama-server.

    Without Debian's archive the tests that want it are skipped and say so; with
    CORTEXD_REQUIRE_ENGINE=1 they fail instead.
    """
    try:
        return fetched_engine()
    except ArchiveUnreachable as unreachable:
        reason = f"NO REAL ENGINE WAS TESTED: {unreachable}"
    if os.environ.get("CORTEXD_REQUIRE_ENGINE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `stops.gguf` and `endless.gguf`."""
    directory = tmp_path_factory.mktemp("models")
    write_models(directory)
    return directory
