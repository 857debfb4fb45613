"""What `cortexd client-config` prints for programs and for a shell, run as it is printed.

The verb asks the running daemon for its model, as it does for a user who gives no more than an
address and a key; then the snippet is run with the client's own package.
"""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from tests.support.daemon_process import DaemonProcess, run_cortexd, serving
from tests.support.fake_neuron import fake_neuron
from tests.whole.sdk_folders import sdk_folder

pytestmark = pytest.mark.slow

SECONDS_MAX = 60
PROGRAMS = [
    ("openai-python", "openai2", ()),
    ("openai-python", "openai3", ("--key", "sk-cap")),
    ("anthropic-python", "anthropic0", ()),
    ("anthropic-python", "anthropic2", ()),
    ("langchain", "langchain", ()),
]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    """A daemon with one model and the key `sk-cap`."""
    key = {"key": "sk-cap", "account_id": "acct-cap", "hard_cap": 10_000}
    async with (
        fake_neuron(reply_tokens=12) as neuron,
        serving(tmp_path, {"sim": neuron.url}, keys=[key]) as running,
    ):
        yield running


async def printed(client: str, daemon: DaemonProcess, *flags: str) -> str:
    """The snippet for this daemon."""
    done = await run_cortexd(
        ["client-config", client, "--url", daemon.gateway, *flags],
        environment={"CORTEXD_API_KEY": "sk-cap"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def output_of(command: Sequence[str | Path], **environment: str) -> str:
    """What a program prints that ends well."""
    with trio.fail_after(SECONDS_MAX):
        done = await trio.run_process(
            [*map(str, command)],
            env={**os.environ, "CORTEXD_API_KEY": "sk-cap", **environment},
            capture_stdout=True,
        )
    return bytes(done.stdout).decode()


@pytest.mark.parametrize(("client", "sdk", "flags"), PROGRAMS, ids=[one[1] for one in PROGRAMS])
async def test_a_program_runs_as_it_is_printed(
    client: str, sdk: str, flags: Sequence[str], daemon: DaemonProcess, tmp_path: Path
) -> None:
    folder = sdk_folder(sdk)
    program = tmp_path / "program.py"
    program.write_text(await printed(client, daemon, *flags))
    said = await output_of([sys.executable, program], PYTHONPATH=str(folder))
    assert len(said.split()) >= 6
    assert await daemon.stop() == 0
    *_, asked = daemon.requests()
    assert (asked["status"], asked["ending"], asked["stream"]) == ("200", "completed", "1")
    assert asked["model"] == "sim/small"


async def test_the_lines_for_a_shell_run_as_they_are_printed(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    script = tmp_path / "lines.sh"
    script.write_text(await printed("curl", daemon))
    said = await output_of(["sh", "-eu", script])
    assert "data: [DONE]" in said
    assert '"object":"budget"' in said


async def test_the_lines_for_a_shell_say_what_is_missing_without_a_key(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    script = tmp_path / "lines.sh"
    script.write_text(await printed("curl", daemon))
    without = {name: value for name, value in os.environ.items() if name != "CORTEXD_API_KEY"}
    done = await trio.run_process(
        ["sh", "-eu", str(script)], env=without, check=False, capture_stderr=True
    )
    assert done.returncode != 0
    assert b"put your cortexd key into it" in bytes(done.stderr)
    assert await daemon.stop() == 0
    assert [line["path"] for line in daemon.requests()] == ["/v1/models"]
