"""A llama-server of the user's own, started for the demo and ended with it.

Owns the program's command line, its life and its log. Refuses to know the gateway: it is an engine
at an address, as any other. Everything here blocks, because it happens before the daemon runs and
after it has ended.
"""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

ENGINE = "llama-server"
SLOTS = 4
CONTEXT_TOKENS = 4096
"""Of each slot; small, so that a model of any size leaves room for it."""

START_SECONDS = 1800
END_SECONDS = 3
LAST_LINES = 12

_LOOK_SECONDS = 0.1
_ANSWER_SECONDS = 2
_GGUF = b"GGUF"

# A shell becomes the engine. Beside it stays one that reads from us and kills the whole group at
# the end of that, so that no engine outlives a demo that was killed itself.
_GUARDED = 'exec 3<&0; (read -r _ <&3; kill -9 0) >/dev/null 2>&1 & exec "$@" 3<&- </dev/null'


class EngineProblem(Exception):
    """Why there is no engine, and what can be done about it."""


class RunningEngine(msgspec.Struct, frozen=True):
    """An engine that answers. `model`: the name to ask for."""

    url: str
    model: str
    pid: int
    log: Path


def program_at(path: str | None) -> Path:
    """The program to start: the one at `path`, else the one in PATH; raises EngineProblem."""
    if path is None:
        found = shutil.which(ENGINE)
        if found is None:
            raise EngineProblem(
                f"there is no {ENGINE} in PATH.\n"
                "Install llama.cpp, or say where it is: --engine-path PATH"
            )
        return Path(found)
    if not Path(path).is_file():
        raise EngineProblem(f"--engine-path {path}: there is no such file")
    if not os.access(path, os.X_OK):
        raise EngineProblem(f"--engine-path {path}: it is no program that can be run")
    return Path(path).absolute()


def model_at(path: str) -> Path:
    """The model's file; raises EngineProblem where it cannot be one."""
    try:
        with Path(path).open("rb") as file:
            magic = file.read(len(_GGUF))
    except OSError as error:
        raise EngineProblem(f"--model {path}: {error.strerror}") from error
    if magic != _GGUF:
        raise EngineProblem(f"--model {path}: it is no GGUF file, which is what {ENGINE} reads")
    return Path(path).absolute()


def name_of(model: Path) -> str:
    """What a model is called in the demo: its file's name, as far as names may go."""
    return "local/" + (re.sub(r"[^A-Za-z0-9._-]+", "-", model.stem).strip("-") or "model")


@contextlib.contextmanager
def running(program: Path, model: Path, log: Path) -> Iterator[RunningEngine]:
    """The engine from when it can answer until left; raises EngineProblem when it cannot start.

    What it writes goes to the file `log`.
    """
    port = _free_port()
    name = name_of(model)
    command = [str(program), *_options(model, name, port)]
    with _started(command, log) as process:
        _wait_until_it_answers(process, port, log)
        yield RunningEngine(f"http://127.0.0.1:{port}", name, process.pid, log)


def _options(model: Path, name: str, port: int) -> Sequence[str]:
    """Those that every llama-server of the last years knows."""
    return (
        *("--model", str(model), "--alias", name),
        *("--host", "127.0.0.1", "--port", str(port), "--metrics"),
        *("--parallel", str(SLOTS), "--ctx-size", str(SLOTS * CONTEXT_TOKENS)),
    )


@contextlib.contextmanager
def _started(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process group of its own, so that Ctrl-C is ours alone; gone when left."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["/bin/sh", "-c", _GUARDED, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            process_group=0,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            # The guard is in the group as long as we live, so that it is nobody else's by now.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not _answers(port):
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(_LOOK_SECONDS)
            how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
            raise EngineProblem(f"{ENGINE} ended {how} as it started. {_last_lines(log)}")
        if time.monotonic() > until:
            raise EngineProblem(
                f"{ENGINE} cannot answer after {START_SECONDS} s. {_last_lines(log)}"
            )


def _answers(port: int) -> bool:
    """Whether it can answer requests by now; while it loads its model, it says 503."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    if not lines:
        return "It said nothing."
    return "Its last lines:\n" + "\n".join(f"  {line}" for line in lines)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
