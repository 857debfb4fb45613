"""A process that takes part in the benchmark: started, pinned, ready, given orders, ended.

Ours say in their first line where they listen; a program that does not is told its port, and is
ready when it answers a request as it should. Refuses to know what is measured.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench import observed, traffic

ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 10
READY_SECONDS_MAX = 90
LOG_SHOWN = 2000
_PATIENCE_SECONDS = 0.02

_cores = observed.cores()
SERVER_CORES = _cores[:1]
LOAD_CORES = _cores[1:2] or _cores[:1]


class BenchFailed(Exception):
    """Something that was measured did not work, so that its numbers would mean nothing."""


class Child:
    """One process. `ready_seconds`: from its start until it said that it listens, or answered."""

    def __init__(
        self,
        command: Sequence[str],
        cores: Sequence[int],
        log: Path,
        *,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it and wait until it is ready; `port` 0: it says which, in its first line.

        Raises BenchFailed, with the end of what it wrote to `log`, when it does not get there.
        """
        self._command = " ".join(command[:3])
        self._log = log
        began = time.monotonic()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=errors if port else subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=None if environment is None else {**os.environ, **environment},
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        self.pid = self._process.pid
        try:
            self.port = port or _port_in(self._line())
            if port:
                self._wait_until_it_answers(began + READY_SECONDS_MAX)
        except BenchFailed:
            self.end()
            raise
        self.ready_seconds = time.monotonic() - began

    def ask(self, line: bytes) -> bytes:
        """Write a line to its input, read one from its output."""
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
        return self._line().encode()

    def _line(self) -> str:
        assert self._process.stdout is not None, "it was started with a pipe"
        line = self._process.stdout.readline().decode().strip()
        if not line:
            raise BenchFailed(f"{self._command} ended unexpectedly:\n{self._last_words()}")
        return line

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_SHOWN:].strip()

    def _wait_until_it_answers(self, until: float) -> None:
        while not _answers(self.port):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE_SECONDS)
            if self._process.returncode is not None or time.monotonic() > until:
                raise BenchFailed(f"{self._command} did not get ready:\n{self._last_words()}")

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """It takes no CPU time while this is entered, whatever it has left to do."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Ask it to end, and kill it if it does not."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.communicate()


def _port_in(line: str) -> int:
    """From `listening NAME http://HOST:PORT`; 0 of one that has no port to tell."""
    port = line.rpartition(":")[2]
    return int(port) if port.isdigit() else 0


def _answers(port: int) -> bool:
    """Whether the usual request is answered as it should be."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("POST", traffic.PATH, traffic.body_of("plain"), traffic.HEADERS)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def free_port() -> int:
    """A port that nobody listens on, for a program that cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as momentary:
        port: int = momentary.getsockname()[1]
        return port


def module(*arguments: str) -> list[str]:
    """The command that runs one of our modules with this Python."""
    return [sys.executable, "-m", *arguments]


@contextlib.contextmanager
def started(command: Sequence[str], cores: Sequence[int], log: Path) -> Iterator[Child]:
    """A child that has ended when this is left."""
    child = Child(command, cores, log)
    try:
        yield child
    finally:
        child.end()
