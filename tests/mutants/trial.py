"""One mutant at a time, in a tree of its own.

Owns the private copy of the tree, the processes that run in it, and the verdict. The shared tree is
only ever read.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, Self

import msgspec

from tests.mutants.mutant import Mutant, Stale, command_of, mutated

COPIED = ("cortexd", "tests", "packaging", "pyproject.toml")
_LEFT_OUT = ("__pycache__", ".hypothesis", "*.pyc")

SECONDS_MAX = 300.0
"""What a layer may take where nobody has measured what it takes."""

NO_END = "no end within"
"""How the words begin about a layer that had to be stopped."""

_CARELESS = re.compile(r"\b(NameError|UnboundLocalError|ImportError|IndentationError)\b")
"""A mutant that does not even run is no mistake that somebody could make without noticing."""

_INVARIANT = re.compile(r"\b(I\d\d?): ")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (?P<what>.*)$", re.MULTILINE)


class Outcome(msgspec.Struct, frozen=True):
    """How running a layer ended. `said`: what failed first, in one line; "" if nothing did."""

    passed: bool
    seconds: float
    said: str = ""
    invariant: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What became of a mutant. `layer`: the one that killed it; `said`: what failed there.

    `invariant`: the one that was reported broken, where one was.
    """

    mutant: Mutant
    kind: Literal["killed", "SURVIVED", "STALE"]
    seconds: float
    layer: str = ""
    said: str = ""
    invariant: str = ""


class Tree:
    """A private copy of the tree at `root`, in `directory`, to be broken and mended again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def copy(cls, root: Path, directory: Path) -> Self:
        """Copy what the tests need, and compile it by content.

        By content, as a mutant may have the size and the time of the file that it replaces, which
        is all that Python looks at otherwise.
        """
        for name in COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns(*_LEFT_OUT))
            elif source.exists():
                shutil.copy(source, directory / name)
        compiling = ("-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "cortexd")
        subprocess.run([sys.executable, *compiling], cwd=directory, check=True)
        return cls(directory)

    def try_mutant(self, mutant: Mutant, seconds_max: dict[str, float]) -> Verdict:
        """Break the copy, run the mutant's layers until one fails, and mend the copy."""
        started = time.monotonic()
        path = self.directory / mutant.file
        try:
            text = path.read_text()
            changed = mutated(mutant, text)
        except (OSError, Stale) as error:
            return Verdict(mutant, "STALE", 0, said=str(error))
        path.write_text(changed)
        try:
            for layer in mutant.layers:
                outcome = self.run(layer, seconds_max.get(layer, SECONDS_MAX))
                if not outcome.passed:
                    if _CARELESS.search(outcome.said):
                        return Verdict(mutant, "STALE", 0, layer, outcome.said)
                    seconds = time.monotonic() - started
                    return Verdict(
                        mutant, "killed", seconds, layer, outcome.said, outcome.invariant
                    )
        finally:
            path.write_text(text)
        return Verdict(mutant, "SURVIVED", time.monotonic() - started)

    def run(self, layer: str, seconds_max: float = SECONDS_MAX) -> Outcome:
        """Run one layer in the copy as it is now. One that does not end in time has failed."""
        started = time.monotonic()
        with subprocess.Popen(
            command_of(layer, sys.executable),
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        ) as child:
            try:
                output, _ = child.communicate(timeout=seconds_max)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)  # its children, too: a session of its own
                child.communicate()
                return Outcome(False, seconds_max, f"{NO_END} {seconds_max:.0f} s")
        seconds = time.monotonic() - started
        if child.returncode == 0:
            return Outcome(True, seconds)
        found = _INVARIANT.search(output)
        return Outcome(False, seconds, _what_failed(output), found[1] if found else "")

    def _environment(self) -> dict[str, str]:
        # The copy comes first however this Python finds the checkout.
        return {
            **os.environ,
            "PYTHONPATH": str(self.directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "COLUMNS": "240",  # so that pytest says what failed, not only where
        }


def _what_failed(output: str) -> str:
    """The first thing that failed, in one line: a test by its name, or the last words."""
    failed = _FAILED.search(output)
    if failed:
        return failed["what"]
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    again = [index for index, line in enumerate(lines) if line.startswith("again:")]
    if again and again[0]:
        return lines[again[0] - 1].removeprefix("tests.sim.layers.Broken: ")
    return lines[-1] if lines else "no words"
