"""The log: one line per event, key=value, to standard error, for journald or a terminal.

journald knows the time and the unit, so under it a line starts with the priority that it
understands (sd-daemon(3)); elsewhere with a time stamp. No key and no prompt is ever handed to a
logger.
"""

import logging
import math
import re
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TextIO

import trio

JOIN_SECONDS = 0.02
"""How long a line may wait for others that come close behind it, to be written with them."""

JOINED_MAX = 100
"""So many lines are written at once, however short they waited."""

_PLAIN = re.compile(r"[A-Za-z0-9._:/-]+")

_PRIORITY = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class _JournalFormatter(logging.Formatter):
    """`<6>cortexd.request event=...`: every line of a record carries its priority."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return prefix + super().format(record).replace("\n", f"\n{prefix}")


class Output(logging.StreamHandler[TextIO]):
    """Where all logging goes: records at once, and lines of which there are thousands together.

    Most of what a line costs is its write. So a `line` that comes close behind another is kept, for
    `run` to write it with those that follow. What is kept goes out before any record, so that the
    order stays, and when `run` or the process ends; only a process that is killed loses it.
    """

    def __init__(self, stream: TextIO, *, to_journal: bool) -> None:
        """Write to `stream`. Nothing is kept before `run` runs."""
        super().__init__(stream)
        self._to_journal = to_journal
        self._kept: list[str] = []
        self._keeps_until = -math.inf
        self._is_kept: trio.Event | None = None
        if to_journal:
            self.setFormatter(_JournalFormatter("%(name)s %(message)s"))
        else:
            form = "%(asctime)s %(levelname)-7s %(name)s %(message)s"
            self.setFormatter(logging.Formatter(form))

    def line(self, name: str, message: str) -> None:
        """Log a message of one line as the logger `name` would at INFO. Trio's thread only."""
        prefix = "<6>" if self._to_journal else f"{_now()} INFO    "
        self._kept.append(f"{prefix}{name} {message}\n")
        if self._is_kept is None or len(self._kept) >= JOINED_MAX:
            self._write_kept()
        elif len(self._kept) == 1:  # those that follow share its fate
            if trio.current_time() < self._keeps_until:
                self._is_kept.set()
            else:
                self._write_kept()
                self._keep_for_a_moment()

    async def run(self) -> None:
        """Write what is kept when it has waited long enough, until cancelled."""
        try:
            while True:
                self._is_kept = trio.Event()
                await self._is_kept.wait()
                await trio.sleep(JOIN_SECONDS)
                self._write_kept()
                self._keep_for_a_moment()
        finally:
            self._is_kept = None
            self._write_kept()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._write_kept()
        super().emit(record)

    def flush(self) -> None:
        """See `logging.Handler`; also called when the process ends."""
        self._write_kept()
        super().flush()

    def _keep_for_a_moment(self) -> None:
        self._keeps_until = trio.current_time() + JOIN_SECONDS

    def _write_kept(self) -> None:
        self.acquire()
        try:
            lines = self._kept[:]
            del self._kept[: len(lines)]  # for a record of another thread, one may come meanwhile
            if lines:
                self.stream.write("".join(lines))
                self.stream.flush()
        except (OSError, ValueError):
            pass  # a log that cannot be written ends nothing, as `logging` has it for records
        finally:
            self.release()


def set_up(environment: Mapping[str, str]) -> Output:
    """Send all logging of the process to standard error."""
    output = Output(sys.stderr, to_journal="JOURNAL_STREAM" in environment)
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(logging.INFO)
    # No line names a thread, a process or a line of code; to find them costs a third of a line
    # (https://docs.python.org/3/howto/logging.html#optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every poll
    return output


def _now() -> str:
    """The local time, as `logging.Formatter` has it."""
    seconds, ms = divmod(time.time_ns() // 1_000_000, 1_000)
    return f"{_second(seconds)},{ms:03d}"


@lru_cache(maxsize=1)
def _second(unix_seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))


def quoted(text: str, *, characters_max: int = 200) -> str:
    """A value from outside, made safe for one key=value line: bounded, printable, and in quotes
    unless every character of it is plain.
    """
    if len(text) <= characters_max and _PLAIN.fullmatch(text):
        return text  # as nearly everything is
    safe = "".join(letter if letter.isprintable() else "?" for letter in text[:characters_max])
    if _PLAIN.fullmatch(safe):
        return safe
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'
