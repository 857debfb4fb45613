"""A real llama-server for tests, with its own meter of what it really did.

Owns how the engine and its models come to be, and the life of one engine process. Knows nothing of
cortexd: what is read here is what the engine counted, whoever asked.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import trio

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODEL_LIBRARIES = ROOT / ".sdk/gguf"
UNREACHABLE = 75
FETCH_SECONDS = 300
PATIENCE_SECONDS = 60


class ArchiveUnreachable(Exception):
    """Debian's archive cannot be reached from here, so there is no engine."""


def fetched_engine() -> Path:
    """The start script of llama-server, fetched if this is the first time; blocks meanwhile."""
    fetching = subprocess.run(
        [HERE / "llama_server.sh"],
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS,
        check=False,
    )
    if fetching.returncode == UNREACHABLE:
        raise ArchiveUnreachable(fetching.stderr.splitlines()[-1])
    assert fetching.returncode == 0, fetching.stderr
    return Path(fetching.stdout.strip())


def write_models(directory: Path) -> None:
    """Put `stops.gguf` and `endless.gguf` into `directory`."""
    assert MODEL_LIBRARIES.is_dir(), "`make .sdk/gguf/.ready` installs what the models need"
    subprocess.run(
        [sys.executable, HERE / "tiny_model.py", directory],
        check=True,
        env={**os.environ, "PYTHONPATH": str(MODEL_LIBRARIES)},
    )


class Meter(msgspec.Struct, frozen=True):
    """What the engine counted since it started, in tokens; and the requests it has now.

    It counts a request when that ends, so that the tokens are whole only while it is idle.
    """

    generated: int
    prompt: int
    busy: int
    waiting: int

    @property
    def tokens(self) -> int:
        """All that it did: prompts, also where it remembered them, and answers."""
        return self.prompt + self.generated

    def since(self, before: "Meter") -> "Meter":
        """What came on top of an earlier reading."""
        generated, prompt = self.generated - before.generated, self.prompt - before.prompt
        return Meter(generated, prompt, self.busy, self.waiting)


def read_meter(exposition: str) -> Meter:
    """A Meter from what `GET /metrics` says."""
    values = {
        name: int(float(value))
        for name, value in re.findall(r"^llamacpp:(\w+) (\S+)$", exposition, re.MULTILINE)
    }
    return Meter(
        generated=values["tokens_predicted_total"],
        prompt=values["prompt_tokens_total"] + values["prompt_tokens_cached_total"],
        busy=values["requests_processing"],
        waiting=values["requests_deferred"],
    )


class Engine:
    """One llama-server process that listens."""

    def __init__(self, process: trio.Process, url: str, client: httpx.AsyncClient) -> None:
        self.process = process
        self.url = url
        self.client = client

    async def meter(self) -> Meter:
        """What it has counted so far."""
        return read_meter((await self.client.get("/metrics")).raise_for_status().text)

    async def meter_when(self, wanted: Callable[[Meter], bool]) -> Meter:
        """The first reading that is as wanted."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not wanted(reading := await self.meter()):
                pass
        return reading

    async def meter_when_idle(self) -> Meter:
        """What it has counted once it has nothing to do any more."""
        return await self.meter_when(lambda meter: not meter.busy and not meter.waiting)


@contextlib.asynccontextmanager
async def llama_server(
    program: Path, model: Path, *, slots: int = 4, slot_tokens: int = 2048
) -> AsyncIterator[Engine]:
    """A llama-server that serves `model` under its file's name; killed when left.

    `slots` requests are served at a time, the others wait; each has a context of `slot_tokens`.
    """
    command = [program, "--model", model, "--alias", model.stem, "--metrics", "--offline"]
    command += ["--no-ui", "--host", "127.0.0.1", "--port", "0", "--threads", "1"]
    command += ["--parallel", str(slots), "--ctx-size", str(slots * slot_tokens)]
    process: trio.Process = await trio.lowlevel.open_process(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(_follow_the_log, process)
            async with httpx.AsyncClient(
                base_url=url, trust_env=False, timeout=PATIENCE_SECONDS
            ) as client:
                yield Engine(process, url, client)
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):  # it was killed: this does not wait
            await process.wait()


async def _follow_the_log(
    process: trio.Process, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Find the address in the log, then read on, for a full pipe would stop the engine."""
    assert process.stderr is not None
    log, found = b"", None
    async with process.stderr:
        with trio.fail_after(PATIENCE_SECONDS):
            while found is None:
                data = await process.stderr.receive_some()
                assert data, f"the engine ended before it listened:\n{log.decode()}"
                log += data
                found = re.search(rb"listening on (http://\S+)\n", log)
        task_status.started(found[1].decode())
        while await process.stderr.receive_some():
            pass
