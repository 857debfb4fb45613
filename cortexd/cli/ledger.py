"""`cortexd ledger`: reads a journal offline, beside a running daemon or after its end.

Owns the list of what can be asked of a ledger; each answer is a module of this folder.
"""

import argparse
import sys

from cortexd.cli import ledger_export, ledger_show, ledger_verify
from cortexd.cli.ledger_directory import Unreadable, add_ledger_flags
from cortexd.ledger.disk import LedgerProblem


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb and what can follow it to the command line."""
    parser = subparsers.add_parser(
        "ledger",
        help="check, show or export a ledger's journal, offline",
        description="Read a ledger's journal from its directory, while a daemon uses it or after. "
        "Nothing is locked, and nothing is changed.",
    )
    questions = parser.add_subparsers(title="questions", metavar="QUESTION", required=True)
    for module in (ledger_verify, ledger_show, ledger_export):
        question = module.add_parser(questions)
        add_ledger_flags(question)
        question.set_defaults(run=run, answer=module.answer)


def run(arguments: argparse.Namespace) -> int:
    """Answer; 1 where the ledger is damaged or cannot be read, 2 for a bad configuration."""
    try:
        code: int = arguments.answer(arguments)
    except Unreadable as error:
        print(f"cortexd ledger: {error}", file=sys.stderr)
        return error.exit_code
    except LedgerProblem as problem:
        print(f"cortexd ledger: {problem}", file=sys.stderr)
        return 1
    return code
