"""`cortexd check-config FILE`: is this configuration fit to run, and if not, what is wrong with it?

Owns the wording of the answer. Starts nothing, asks no neuron, leaves nothing on disk; reads the
same environment as `serve` would. The report is what was asked for, so it goes to standard output.
"""

import argparse
import os
from typing import TYPE_CHECKING

import msgspec

from cortexd.cli.notices import notices_of
from cortexd.config.load import ConfigProblems, Loaded, load, render

if TYPE_CHECKING:
    from cortexd.config.problems import Problem


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb and its arguments."""
    parser = subparsers.add_parser(
        "check-config",
        help="check a configuration and its catalogue, and print every problem",
        description="Checks a configuration and its catalogue offline. Prints all problems with "
        "path, line, cause and hint. Exit code 0: fit to run; 2: not.",
    )
    parser.add_argument("file", metavar="FILE", help="the configuration, as for serve --config")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the answer; 0 when the configuration can be run, else 2."""
    try:
        loaded = load(arguments.file, os.environ, {})
    except ConfigProblems as found:
        print(_json(None, found.problems) if arguments.json else render(found.problems))
        return 2
    print(_json(loaded, []) if arguments.json else _summary(loaded))
    return 0


def _summary(loaded: Loaded) -> str:
    counts = ", ".join(
        f"{n} {name if n != 1 else name[:-1]}" for name, n in _counts(loaded).items()
    )
    ledger = loaded.config.ledger.directory
    notices = [f"notice: {notice}" for notice in notices_of(loaded)]
    return "\n".join([f"ok: {counts}", f"ledger: {ledger}", *notices])


def _counts(loaded: Loaded) -> dict[str, int]:
    return {
        "neurons": len(loaded.config.neurons),
        "keys": len(loaded.config.entitlements.keys),
        "models": len(loaded.catalogue.models),
    }


def _json(loaded: Loaded | None, problems: "list[Problem]") -> str:
    answer = {
        "ok": loaded is not None,
        "problems": problems,
        "notices": notices_of(loaded) if loaded is not None else (),
        **(_counts(loaded) if loaded is not None else {}),
    }
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
