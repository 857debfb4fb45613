"""Break the ledger in every way on the list, and see that each is noticed.

python -m tests.mutants
python -m tests.mutants --list
python -m tests.mutants --only "hint ignored" --only window

Exit status 1 if a mutant survives or no longer fits the code, or if the unbroken tree fails.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.every import MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.trial import NO_END, Outcome, Tree, Verdict

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="names or files with this text")
    parser.add_argument("--list", action="store_true", help="print the list and run nothing")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args(arguments)
    mutants = [each for each in MUTANTS if _is_chosen(each, chosen.only)]
    if chosen.list:
        for mutant in mutants:
            say(f"{mutant.file}: {mutant.name}  [{'; '.join(mutant.layers)}]")
        say(f"{len(mutants)} mutants")
        return 0
    if not mutants:
        parser.error("no mutant has this text in its name or file")
    return run(mutants, workers=chosen.workers)


def run(mutants: Sequence[Mutant], *, workers: int, root: Path = ROOT) -> int:
    """Try the unbroken tree, then each mutant; print what became of them."""
    started = time.monotonic()
    with _trees(root, workers) as trees, ThreadPoolExecutor(workers) as pool:
        try:
            seconds_max = _measured(mutants, trees, pool)
            if seconds_max is None:
                return 1
            seconds = time.monotonic() - started
            say(f"the unbroken tree passes {len(seconds_max)} layers in {seconds:.0f} s")
            verdicts = []
            for verdict in pool.map(lambda mutant: trees.try_mutant(mutant, seconds_max), mutants):
                verdicts.append(verdict)
                say(line_of(verdict))
        finally:
            pool.shutdown(cancel_futures=True)
    return report(verdicts, seconds=time.monotonic() - started)


def _measured(
    mutants: Sequence[Mutant], trees: "_Trees", pool: ThreadPoolExecutor
) -> dict[str, float] | None:
    """What each layer may take, by what it takes on the unbroken tree; None if that fails."""
    layers = sorted({layer for mutant in mutants for layer in mutant.layers})
    seconds_max: dict[str, float] = {}
    for layer, outcome in zip(layers, pool.map(trees.run, layers), strict=True):
        if not outcome.passed:
            say(f"the unbroken tree fails, so no kill would mean anything: {layer}")
            say(f"  {outcome.said}")
            return None
        # Time to spare: this machine may have other things to do later.
        seconds_max[layer] = 15 + 6 * outcome.seconds
    return seconds_max


def line_of(verdict: Verdict) -> str:
    """One verdict as people read it."""
    mutant = verdict.mutant
    line = f"{verdict.kind:8} {verdict.seconds:5.1f} s  {mutant.name} ({mutant.file})"
    if verdict.layer:
        line += f"\n         by {verdict.layer}: "
    elif verdict.said:
        line += ": "
    else:
        line += f": nothing in {', '.join(mutant.layers)} noticed"
    return line + verdict.said[:160]


def report(verdicts: Sequence[Verdict], *, seconds: float) -> int:
    """Totals, by layer and by invariant; 1 unless every mutant was killed."""
    kinds = Counter(verdict.kind for verdict in verdicts)
    layers = Counter(verdict.layer for verdict in verdicts if verdict.layer)
    invariants = Counter(verdict.invariant for verdict in verdicts if verdict.invariant)
    say("")
    for layer, count in layers.most_common():
        say(f"{count:4} killed by {layer}")
    if invariants:
        said = ", ".join(f"{name} {count}" for name, count in sorted(invariants.items()))
        say(f"kills that named an invariant: {said}")
    for verdict in verdicts:
        if verdict.kind != "killed":
            say(line_of(verdict))
    killed = kinds["killed"]
    late = sum(verdict.said.startswith(NO_END) for verdict in verdicts)
    if late:
        say(f"{late} of the kills are layers that came to no end")
    say(
        f"{killed} of {len(verdicts)} mutants killed, {kinds['SURVIVED']} survived, "
        f"{kinds['STALE']} no longer fit, in {seconds:.0f} s"
    )
    return 0 if killed == len(verdicts) else 1


class _Trees:
    """One private copy for each worker, lent to whoever has something to run."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._free: SimpleQueue[Tree] = SimpleQueue()
        for tree in trees:
            self._free.put(tree)

    @contextmanager
    def _one(self) -> Iterator[Tree]:
        tree = self._free.get()
        try:
            yield tree
        finally:
            self._free.put(tree)

    def run(self, layer: str) -> Outcome:
        with self._one() as tree:
            return tree.run(layer)

    def try_mutant(self, mutant: Mutant, seconds_max: dict[str, float]) -> Verdict:
        with self._one() as tree:
            return tree.try_mutant(mutant, seconds_max)


@contextmanager
def _trees(root: Path, count: int) -> Iterator[_Trees]:
    with tempfile.TemporaryDirectory(prefix="cortexd-mutants-") as directory:
        # Copies of one copy: the tree may be worked on meanwhile, and all must be the same.
        first = Path(directory, "0")
        first.mkdir()
        trees = [Tree.copy(root, first)]
        for number in range(1, count):
            another = Path(directory, str(number))
            another.mkdir()
            trees.append(Tree.copy(first, another))
        yield _Trees(trees)


def _is_chosen(mutant: Mutant, only: Sequence[str]) -> bool:
    return not only or any(text in mutant.name or text in mutant.file for text in only)


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


if __name__ == "__main__":
    sys.exit(main())
