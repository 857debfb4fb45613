"""The limit of open files, tried in processes of their own: a hard limit cannot be raised again."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.support.daemon_process import ANY_PORTS, COMMAND, ROOT, configured, started

PROGRAM = """
import logging, resource, sys
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
from cortexd.daemon.descriptors import raise_descriptor_limit
soft, hard, connections_max = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
limit = raise_descriptor_limit(connections_max)
print(limit, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def run(soft: int, hard: int, connections_max: int) -> list[str]:
    """What the program said, its last line being the limit, soft and hard."""
    command = [sys.executable, "-c", PROGRAM, *map(str, (soft, hard, connections_max))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_soft_limit_becomes_the_hard_one() -> None:
    assert run(soft=256, hard=900, connections_max=400) == ["900 900 900"]


@pytest.mark.slow
def test_a_hard_limit_too_low_for_the_connections_is_told() -> None:
    warning, limits = run(soft=256, hard=900, connections_max=1000)
    assert limits == "900 900 900"
    assert warning.startswith("WARNING event=few_descriptors limit=900 needed=2064 ")
    assert "gateway.connections_max" in warning


@pytest.mark.slow
async def test_a_daemon_that_was_started_with_a_low_soft_limit_has_the_hard_one(
    tmp_path: Path,
) -> None:
    path = configured(tmp_path, {"gone": "http://127.0.0.1:1"})
    serve = " ".join([*COMMAND, "serve", "--config", str(path), *ANY_PORTS])
    shell = ["sh", "-c", f"ulimit -n 3000; ulimit -Sn 256; exec {serve}"]
    async with started(shell, tmp_path / "log") as daemon:
        limits = await trio.Path(f"/proc/{daemon.process.pid}/limits").read_text()
    [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3:5] == ["3000", "3000"]
