"""System calls of a process as strace tells them, in the order in which the kernel met them.

Knows strace's spelling (`strace -f -yy`) and nothing of what the calls are about.
"""

import ast
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

STRING_BYTES_MAX = 200_000
"""strace cuts strings off at 32 bytes by default; a cut one is an error here, never a guess."""

_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>")
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"\) += (-?\d+|\?)(?!.*\) += )")
_TARGET = re.compile(r"\d+<(.*?)>(?=[,)]|$)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\.\.\.)?')


class Call(msgspec.Struct, frozen=True):
    """One system call: its name, what its first argument's descriptor is, and the bytes in it.

    `began` and `ended` are places in the trace; another thread's calls may lie between them.
    `ended` and `result` are None for a call that never returned.
    """

    name: str
    target: str
    data: bytes
    began: int
    ended: int | None
    result: int | None


def command(output: Path, syscalls: Sequence[str]) -> tuple[str, ...]:
    """The words before a command line whose calls are to be traced into `output`.

    With -D the traced process stays the child of whoever starts it, so that signals reach it.
    """
    traced = f"trace={','.join(syscalls)}"
    return "strace", *_HOW, "-s", str(STRING_BYTES_MAX), "-e", traced, "-o", str(output)


_HOW = ("-D", "-f", "-yy")


def why_not() -> str | None:
    """Why no process can be traced here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt install strace)"
    probe = subprocess.run(
        ["strace", *_HOW, "-o", "/dev/null", "true"], capture_output=True, timeout=20
    )
    return f"strace may not trace here: {probe.stderr.decode()}" if probe.returncode else None


def calls(trace: str) -> list[Call]:
    """All calls of a trace, in the order in which they began."""
    found: list[Call] = []
    unfinished: dict[str, int] = {}
    for place, line in enumerate(trace.splitlines()):
        match = _LINE.fullmatch(line)
        assert match, f"no line of strace -f: {line[:200]}"
        thread, text = match.groups()
        if (resumed := _RESUMED.match(text)) is not None:
            index = unfinished.pop(thread)
            assert found[index].name == resumed[1]
            found[index] = msgspec.structs.replace(
                found[index], ended=place, result=_result_of(text)
            )
        elif (call := _CALL.match(text)) is not None:
            is_unfinished = text.endswith(_UNFINISHED)
            if is_unfinished:
                unfinished[thread] = len(found)
            found.append(
                Call(
                    name=call[1],
                    target=_target_of(call[2].removesuffix(_UNFINISHED)),
                    data=_data_of(call[2]),
                    began=place,
                    ended=None if is_unfinished else place,
                    result=None if is_unfinished else _result_of(text),
                )
            )
    return found


def _target_of(arguments: str) -> str:
    match = _TARGET.match(arguments)
    return match[1] if match else ""


def _data_of(arguments: str) -> bytes:
    pieces = []
    for text, cut in _STRING.findall(arguments):
        assert not cut, f"strace has cut a string off after {text[:100]!r}"
        pieces.append(ast.literal_eval(f'b"{text}"'))
    return b"".join(pieces)


def _result_of(text: str) -> int | None:
    match = _RESULT.search(text)
    return None if match is None or match[1] == "?" else int(match[1])
