"""What is fetched or made once for all tests of this folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.engines.real_engine import ArchiveUnreachable, fetched_engine, write_models
from tests.whole.sdk_world import SCRIPTS, Session, folder_of, sessions_of


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


@pytest.fixture(scope="session")
def session_with(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Session]:
    """The session of a client of sdk_world.py; all that are needed run once, and together."""
    wanted = {
        item.callspec.params.get("session")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    clients = [client for client in SCRIPTS if client in wanted and _is_there(client)]
    outcomes = trio.run(sessions_of, clients, tmp_path_factory.mktemp("sdks"))

    def session(client: str) -> Session:
        folder_of(client)
        outcome = outcomes[client]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return session


def _is_there(client: str) -> bool:
    try:
        folder_of(client)
    except pytest.skip.Exception:
        return False
    return True
