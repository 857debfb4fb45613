"""The daemon as users run it: a process of its own, configured by a file."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import httpx
import msgspec
import trio
import yaml

PATIENCE_SECONDS = 30
ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "cortexd")


class DaemonProcess:
    """One `cortexd serve` process and the addresses it announced."""

    def __init__(self, process: trio.Process, lines: Sequence[str], log: Path) -> None:
        self.process = process
        self.lines = lines
        self.log = log
        addresses = dict(line.split()[1:] for line in lines)
        self.gateway, self.metrics = addresses["gateway"], addresses["metrics"]

    def client(self, key: str = "sk-cap", **options: object) -> httpx.AsyncClient:
        """An HTTP client of the gateway with this key."""
        return httpx.AsyncClient(
            base_url=self.gateway,
            headers={"authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=PATIENCE_SECONDS,
            **options,  # type: ignore[arg-type]  # httpx's own options, passed through
        )

    async def budget(self, key: str = "sk-cap") -> Mapping[str, object]:
        """`GET /v1/budget` of this key."""
        async with self.client(key) as client:
            answer = await client.get("/v1/budget")
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=dict[str, object])

    async def settled_budget(self, key: str = "sk-cap") -> Mapping[str, object]:
        """The budget once nothing is reserved any more."""
        with trio.fail_after(PATIENCE_SECONDS):
            while (budget := await self.budget(key))["reserved"]:
                pass
        return budget

    def requests(self) -> list[dict[str, str]]:
        """The log line of every finished request, by field; complete once the daemon has ended."""
        lines = self.log.read_text().splitlines()
        return [fields_of(line) for line in lines if " event=request " in line]

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        await self.process.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop and return its exit code."""
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE_SECONDS):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    neurons: Mapping[str, str | Mapping[str, object]],
    *,
    keys: Sequence[Mapping[str, object]] = (),
    command: Sequence[str] = COMMAND,
    environment: Mapping[str, str] | None = None,
    flags: Sequence[str] | None = None,
    close_fds: bool = True,
    **sections: object,
) -> AsyncIterator[DaemonProcess]:
    """`cortexd serve` in front of `neurons`, with its files in `directory` (see `configured`).

    `flags`: the listen flags, on any free ports by default; ends the process (kill -9) when left.
    """
    path = configured(directory, neurons, keys=keys, **sections)
    async with started(
        [*command, "serve", "--config", str(path), *(ANY_PORTS if flags is None else flags)],
        directory / "daemon.log",
        environment=environment,
        close_fds=close_fds,
    ) as daemon:
        yield daemon


def configured(
    directory: Path,
    neurons: Mapping[str, str | Mapping[str, object]],
    *,
    keys: Sequence[Mapping[str, object]] = (),
    **sections: object,
) -> Path:
    """Write a configuration file with these neurons (name to URL, or to more of its fields).

    `sections` are laid over the configuration.
    """
    config = {
        "neurons": [
            {"name": name, **({"endpoint": neuron} if isinstance(neuron, str) else neuron)}
            for name, neuron in neurons.items()
        ],
        "entitlements": {"keys": list(keys or [CAPPED_KEY])},
        "ledger": {"directory": str(directory / "ledger")},
        **sections,
    }
    path = directory / "cortexd.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


CAPPED_KEY = {"key": "sk-cap", "account_id": "acct-cap", "key_id": "key-cap", "hard_cap": 100}
ANY_PORTS = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")


@contextlib.asynccontextmanager
async def started(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    close_fds: bool = True,
) -> AsyncIterator[DaemonProcess]:
    """A daemon process, from its two `listening` lines on; killed (-9) when left.

    `close_fds` False: it inherits what is inheritable.
    """
    with log.open("ab") as errors:
        process: trio.Process = await trio.lowlevel.open_process(
            list(command),
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            close_fds=close_fds,
        )
    assert process.stdout is not None
    async with process.stdout:  # to the end, since it may have more to say
        try:
            yield DaemonProcess(process, await _listening_lines(process.stdout, log), log)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):  # a killed process ends at once
                await process.wait()


async def run_cortexd(
    arguments: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `cortexd ARGUMENTS`, expected to end by itself; its exit code and output."""
    with trio.fail_after(PATIENCE_SECONDS):
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            [*COMMAND, *map(str, arguments)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def fields_of(line: str) -> dict[str, str]:
    """The key=value pairs of a log line; quotes around a value stay."""
    return dict(_FIELD.findall(line))


async def _listening_lines(output: trio.abc.ReceiveStream, log: Path) -> Sequence[str]:
    received = b""
    with trio.fail_after(PATIENCE_SECONDS):
        while received.count(b"\n") < 2:
            data = await output.receive_some()
            assert data, f"the daemon ended before it listened; see {log}"
            received += data
    return received.decode().splitlines()[:2]


def chat(
    content: str = "hi", *, max_tokens: int | None = 20, model: str = "sim/small", **fields: object
) -> dict[str, object]:
    """A chat request's body."""
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        **fields,
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return body
