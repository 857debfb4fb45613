"""The command line: finds the verb, runs it, and turns its end into an exit code.

Owns the list of verbs and the exit codes: 0 fine, 1 failed, 2 wrong usage or bad configuration,
130 after Ctrl-C. Knows nothing of what a verb does: each verb is a module of this folder that adds
its own parser. A verb's module is imported only when that verb, or the list of all verbs, is asked
for, so that ``cortexd --version`` does not pay for the daemon.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from cortexd import __version__
from cortexd.cli.standard_output import OutputLost, take_over_standard_output

#: Verb -> its module in this folder, in the order in which ``--help`` tells about them.
VERBS = {
    "serve": "serve",
    "demo": "demo",
    "check-config": "check_config",
    "doctor": "doctor",
    "status": "status",
    "models": "models",
    "load": "load",
    "unload": "unload",
    "pin": "pin",
    "drain": "drain",
    "undrain": "undrain",
    "ledger": "ledger",
    "client-config": "client_config",
}

#: What a shell reports for a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130

_VERSION = f"cortexd {__version__}"

Subparsers = argparse._SubParsersAction  # argparse gives its own return type no public name


class Verb(Protocol):
    """What a verb's module offers."""

    def add_parser(self, subparsers: "Subparsers[argparse.ArgumentParser]", /) -> object:
        """Add the verb's parser, with ``run`` set to a ``Callable[[Namespace], int]``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cortexd ARGV`` (default: the process's own arguments) and return its exit code.

    A bug in a verb leaves as the exception it is, which Python reports with exit code 1. Standard
    output that cannot be written ends a verb with a line about it, or none where its reader left.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    take_over_standard_output()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1] is None:  # trio wraps the Ctrl-C it passes on
            return INTERRUPTED
        raise
    except OutputLost as lost:
        if not lost.by_reader:
            print(f"cortexd: {lost}", file=sys.stderr)
        return 1


def _run(arguments: Sequence[str]) -> int:
    parser = _parser(_verbs_needed(arguments))
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has already printed the help, the version or the mistake
        sys.stdout.flush()
        return stop.code if isinstance(stop.code, int) else 2
    if options.verb is None:
        parser.print_help(sys.stderr)
        return 2
    run = cast("Callable[[argparse.Namespace], int]", options.run)
    exit_code = run(options)
    sys.stdout.flush()  # here, where what fails is still ours to deal with
    return exit_code


def _verbs_needed(arguments: Sequence[str]) -> Sequence[str]:
    """The verb that is named first; none for ``--version``; else all, for help and mistakes."""
    first = arguments[0] if arguments else ""
    if first in VERBS:
        return (first,)
    if first == "--version":
        return ()
    return tuple(VERBS)


def _parser(verbs: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cortexd",
        description="One endpoint in front of your own GPUs, with token budgets that hold.",
        epilog="Exit codes: 0 fine, 1 failed, 2 wrong usage or bad configuration.",
    )
    subparsers = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB")
    for verb in verbs:
        module = cast("Verb", import_module(f"cortexd.cli.{VERBS[verb]}"))
        module.add_parser(subparsers)
    _add_version(parser)
    return parser


def _add_version(parser: argparse.ArgumentParser, *, shown: bool = True) -> None:
    """Have a parser and all below it take ``--version``; only the first one's help tells of it."""
    text = "show the version and exit" if shown else argparse.SUPPRESS
    parser.add_argument("--version", action="version", version=_VERSION, help=text)
    for action in parser._actions:
        if isinstance(action, Subparsers):
            for child in action.choices.values():
                _add_version(child, shown=False)
