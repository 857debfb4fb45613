"""`cortexd ledger verify`: is every kept byte of the journal what was written, and does it add up?

Owns the wording of the report, which is what was asked for and goes to standard output.
"""

import argparse

import msgspec

from cortexd.cli.ledger_directory import opened
from cortexd.ledger.chain import Finding
from cortexd.ledger.verifying import Verdict, verify


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the question; the caller adds the flags that name a ledger."""
    parser = subparsers.add_parser(
        "verify",
        help="check every segment, and add up every balance again",
        description="Check all segments that are kept: checksums, numbers, digests, every "
        "invariant, and that each segment's entries give the balances of the next one's snapshot. "
        "Exit code 0: sound; 1: not.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def answer(arguments: argparse.Namespace) -> int:
    """Print the report; 1 if anything is wrong, or if there is nothing to check.

    Raises LedgerProblem for a journal in another format.
    """
    with opened(arguments) as directory:
        verdict = verify(directory, where=directory.path)
        print(
            _json(verdict, directory.path) if arguments.json else _report(verdict, directory.path)
        )
    return 0 if _is_good(verdict) else 1


def _is_good(verdict: Verdict) -> bool:
    return verdict.is_sound and verdict.segments is not None


def _report(verdict: Verdict, where: str) -> str:
    faults = [_told(finding, where) for finding in verdict.findings]
    notices = [f"notice: {_told(notice, where)}" for notice in verdict.notices]
    if verdict.segments is None and not faults:
        return f"{where}: there is no ledger here"
    count = len(faults)
    end = "ok: sound" if not count else f"{count} {'fault' if count == 1 else 'faults'}"
    return "\n".join([*faults, *notices, *_checked(verdict, where), end])


def _checked(verdict: Verdict, where: str) -> list[str]:
    """What was looked at, in lines."""
    if verdict.segments is None:
        return []
    first, last = verdict.segments
    begin, end = verdict.entries or (0, 0)
    numbers = f" ({begin} to {end})" if verdict.entries else ""
    reservations = f"{verdict.holds} made, {verdict.closes} charged or released"
    if verdict.ghosts:
        reservations += f", {verdict.ghosts} left behind by a process that died"
    return [
        f"ledger: {where}",
        f"segments: {first} to {last}, {verdict.size_bytes} bytes",
        f"entries: {verdict.entry_count}{numbers}",
        f"reservations: {reservations}",
        f"balances: {verdict.balances} added up again and compared with a snapshot",
    ]


def _told(finding: Finding, where: str) -> str:
    """In the words in which `serve` refuses to start, where it would."""
    hint = f". {finding.hint}" if finding.hint else ""
    return f"{where}/{finding.file}: {finding.what}{hint}"


def _json(verdict: Verdict, where: str) -> str:
    report = {"ok": _is_good(verdict), "directory": where, **msgspec.to_builtins(verdict)}
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()
