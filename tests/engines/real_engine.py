"""A real llama-server for tests, with its own meter of what it really did.

Owns how the engine and its models come to be, and the life of one engine process. Knows nothing of
cortexd: what is read here is what the engine counted, whoever asked.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
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

    Tokens are counted when a request ends, `steps` as they are made. Reading the meter disturbs:
    while results of any kind keep coming, llama-server does not look whether clients have left.
    """

    generated: int = 0
    prompt: int = 0
    steps: int = 0
    busy: int = 0
    waiting: int = 0

    @property
    def tokens(self) -> int:
        """All that it did: prompts, also where it remembered them, and answers."""
        return self.prompt + self.generated

    def since(self, before: "Meter") -> "Meter":
        """What came on top of an earlier reading."""
        return Meter(
            generated=self.generated - before.generated,
            prompt=self.prompt - before.prompt,
            steps=self.steps - before.steps,
            busy=self.busy,
            waiting=self.waiting,
        )


def read_meter(exposition: str) -> Meter:
    """A Meter from what `GET /metrics` says."""
    values = {
        name: int(float(value))
        for name, value in re.findall(r"^llamacpp:(\w+) (\S+)$", exposition, re.MULTILINE)
    }
    return Meter(
        generated=values["tokens_predicted_total"],
        prompt=values["prompt_tokens_total"] + values["prompt_tokens_cached_total"],
        steps=values["n_decode_total"],
        busy=values["requests_processing"],
        waiting=values["requests_deferred"],
    )


class Engine:
    """One llama-server process that listens; its log tells when it begins and ends an answer."""

    def __init__(self, process: trio.Process) -> None:
        """Knows nothing yet; `llama_server` makes it ready."""
        self.process = process
        self.url = ""
        self.client = httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS)
        self._log = ""
        self._log_grew = trio.Event()

    async def meter(self) -> Meter:
        """What it has counted so far."""
        answer = await self.client.get(f"{self.url}/metrics")
        return read_meter(answer.raise_for_status().text)

    async def meter_when(self, wanted: Callable[[Meter], bool]) -> Meter:
        """The first reading that is as wanted."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not wanted(reading := await self.meter()):
                pass
        return reading

    async def meter_when_idle(self) -> Meter:
        """What it has counted once it has nothing to do; until then, only its log is read."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                await self._log_when(lambda: self.answers_begun == self.answers_ended)
                reading = await self.meter()
                if not reading.busy and not reading.waiting:
                    return reading

    @property
    def answers_begun(self) -> int:
        """Answers that ever got a slot; a request with n=2 has two."""
        return self._log.count("| processing task")

    @property
    def answers_ended(self) -> int:
        """Answers that gave their slot back."""
        return self._log.count("| stop processing")

    async def begins(self, answers: int = 1) -> None:
        """Wait until it has begun so many answers since it started."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self._log_when(lambda: self.answers_begun >= answers)

    async def says_more(self, *, within_seconds: float) -> None:
        """Wait for more in its log; it may have nothing to say."""
        with trio.move_on_after(within_seconds):
            await self._log_grew.wait()

    async def listens(self) -> None:
        """Wait for its address."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self._log_when(lambda: " listening on http://" in self._log)
        found = re.search(r" listening on (http://\S+)", self._log)
        assert found is not None
        self.url = found[1]

    async def follow_the_log(self) -> None:
        """Read the log to its end; to be run all the while, for a full pipe stops the engine."""
        assert self.process.stderr is not None
        async with self.process.stderr:
            while data := await self.process.stderr.receive_some():
                self._log += data.decode(errors="replace")
                self._log_grew.set()
                self._log_grew = trio.Event()

    async def _log_when(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._log_grew.wait()


@contextlib.asynccontextmanager
async def llama_server(
    program: Path,
    model: Path,
    *,
    slots: int = 4,
    slot_tokens: int = 2048,
    port: int = 0,
    flags: Sequence[str] = (),
) -> AsyncIterator[Engine]:
    """A llama-server that serves `model` under its file's name; killed when left.

    `slots` answers are made at a time, the others wait; each has a context of `slot_tokens`.
    `port` 0: any that is free. `flags`: further ones of its command line.
    """
    command = [program, "--model", model, "--alias", model.stem, "--metrics", "--offline"]
    command += ["--no-ui", "--host", "127.0.0.1", "--port", str(port), "--threads", "1"]
    command += ["--parallel", str(slots), "--ctx-size", str(slots * slot_tokens), *flags]
    async with _engine(command) as engine:
        yield engine


@contextlib.asynccontextmanager
async def llama_router(
    program: Path, models: Path, *, models_max: int = 2, port: int = 0
) -> AsyncIterator[Engine]:
    """A llama-server without a model, which starts a server for each model of the folder `models`.

    At most `models_max` of them run at a time. Killed with all of them when left.
    """
    command = [program, "--models-dir", models, "--models-max", models_max, "--offline", "--no-ui"]
    command += ["--host", "127.0.0.1", "--port", port, "--threads", "1", "--parallel", "2"]
    async with _engine([*command, "--ctx-size", "4096", "--metrics"]) as engine:
        yield engine


@contextlib.asynccontextmanager
async def _engine(command: Sequence[object]) -> AsyncIterator[Engine]:
    """A process group of its own that listens; killed when left."""
    process: trio.Process = await trio.lowlevel.open_process(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    engine = Engine(process)
    try:
        async with engine.client, trio.open_nursery() as nursery:
            nursery.start_soon(engine.follow_the_log, name="log of the engine")
            await engine.listens()
            yield engine
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):  # it was killed: this does not wait
            await process.wait()
