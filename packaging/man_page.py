"""Writes `cortexd.1`, the manual page, from the command line itself.

Owns troff and the few sentences that no parser knows (files, signals, where the manual is).
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from command_line import Argument, Command, cortexd

from cortexd import __version__
from cortexd.cli.main import INTERRUPTED

FILES = {
    "/etc/cortexd/cortexd.yaml": "The configuration: neurons, keys and their caps.",
    "/etc/default/cortexd": "Variables of the environment that override it. Need not exist.",
    "/var/lib/cortexd/ledger": "The journal of what was spent. Losing it forgets that.",
    "/run/cortexd": "What a running daemon can be asked over, by root.",
    "/usr/share/doc/cortexd": "The manual, as Markdown, and examples.",
}


def man_page(command: Command) -> str:
    """The page of a command line, as troff with the `man` macros; no date, so that it is always
    the same.
    """
    return "\n".join(lines_of(command)) + "\n"


def lines_of(command: Command) -> Iterator[str]:
    """The page's lines."""
    yield f'.TH CORTEXD 1 "" "cortexd {__version__}" "User Commands"'
    yield from (".SH NAME", r"cortexd \- gateway for language models with hard token budgets")
    yield from (".SH SYNOPSIS", synopsis(command), ".SH DESCRIPTION", text(command.description))
    yield ".SH OPTIONS"
    for argument in command.options:
        yield from entry(argument)
    yield ".SH VERBS"
    for below in command.below:
        for each in below.all():
            yield from section(each)
    yield from (".SH EXIT STATUS", text(command.epilog))
    yield f"A command that was ended by Ctrl-C ends with {INTERRUPTED}."
    yield ".SH FILES"
    for path, what in FILES.items():
        yield from (".TP", ".I " + text(path), text(what))
    yield from (".SH SEE ALSO", ".BR systemctl (1),", ".BR journalctl (1),", ".BR systemd.exec (5)")


def section(command: Command) -> Iterator[str]:
    """One verb, or one question of a verb."""
    yield from (".SS " + text(" ".join(command.words)), synopsis(command), ".PP")
    yield text(command.description)
    for argument in (*command.operands, *command.options):
        if argument.flags != ("-h", "--help"):  # said once, for all
            yield from entry(argument)


def entry(argument: Argument) -> Iterator[str]:
    """A flag or a value with what it means."""
    heading = ", ".join(map(bold, argument.flags))
    if argument.value:
        heading += (" " if heading else "") + italic(argument.value)
    yield from (".TP", heading, text(argument.summary))


def synopsis(command: Command) -> str:
    """How it is called: what is typed as it stands bold, what stands for something else italic."""
    name = " ".join(command.words)
    rest = command.usage.removeprefix(name).replace(" [-h]", "")
    styled = [bold(name)]
    for part in re.split(r"(--?[a-z][a-z-]*|\b[A-Z][A-Z:_]*\b)", rest):
        style = bold if re.match(r"--?[a-z]", part) else italic if part.isupper() else text
        styled.append(style(part))
    return "".join(styled)


def bold(words: str) -> str:
    """Bold in the middle of a line."""
    return rf"\fB{text(words)}\fR"


def italic(words: str) -> str:
    """Italic in the middle of a line."""
    return rf"\fI{text(words)}\fR"


def text(words: str) -> str:
    """Plain text: nothing in it is taken for a request, and a hyphen can be copied as one."""
    escaped = words.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga")
    return re.sub(r"(?m)^([.'])", r"\\&\1", escaped.replace("'", r"\(aq"))


if __name__ == "__main__":
    sys.stdout.write(man_page(cortexd()))
