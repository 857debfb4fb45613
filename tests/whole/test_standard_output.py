"""A daemon whose standard output nobody can read serves all the same, and ends as it should."""

import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import TextIO

import pytest
import trio

from tests.support.daemon_process import ANY_PORTS, COMMAND, PATIENCE_SECONDS, ROOT, configured

pytestmark = pytest.mark.slow


async def stopped_once_ready(
    command: list[str], redirection: str = "", *, stdout: TextIO | None = None
) -> tuple[int, str]:
    """Exit code and standard error of a daemon that is stopped as soon as it is ready."""
    process: trio.Process = await trio.lowlevel.open_process(
        ["sh", "-c", f"exec {shlex.join(command)} {redirection}"],
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ,
    )
    assert process.stderr is not None
    said, is_told = b"", False
    with trio.fail_after(PATIENCE_SECONDS):
        async for data in process.stderr:
            said += data
            if b"event=ready" in said and not is_told:
                process.send_signal(signal.SIGTERM)
                is_told = True
        return await process.wait(), said.decode()


@pytest.mark.parametrize(
    ("output", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
async def test_a_daemon_whose_addresses_nobody_reads_serves_and_ends_well(
    tmp_path: Path, output: str, why: str
) -> None:
    path = configured(tmp_path, {})
    code, said = await stopped_once_ready(
        [*COMMAND, "serve", "--config", str(path), *ANY_PORTS], output
    )
    assert code == 0
    assert f"notice: standard output cannot be written: {why}" in said.splitlines()
    assert "Traceback" not in said
    assert "event=bug" not in said


async def test_a_demo_whose_reader_leaves_goes_on() -> None:
    """As in ``cortexd demo | head -1``."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as nobody:
        code, said = await stopped_once_ready([*COMMAND, "demo", *ANY_PORTS], stdout=nobody)
    assert code == 0
    assert "notice: standard output cannot be written: Broken pipe" in said.splitlines()
    assert "Traceback" not in said
