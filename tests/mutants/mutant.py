"""What a mutant is, and what should notice it.

Owns the shape of the lists and the judgement whether one still fits the code. Refuses to run
anything: `trial.py` does that.
"""

import ast
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec


class Mutant(msgspec.Struct, frozen=True):
    """One thing that somebody could get wrong.

    `name`: what went wrong, in words. `file`: from the root of the tree. `old` occurs in it exactly
    once and is replaced by `new`. `layers`: what to run until one of them fails, the cheapest
    first; see `command_of`.
    """

    name: str
    file: str
    old: str
    new: str
    layers: tuple[str, ...]


def of_file(
    file: str, layers: str | Sequence[str], *mutants: tuple[str, str, str]
) -> tuple[Mutant, ...]:
    """Mutants of one file with the same layers; each is (name, old, new)."""
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    return tuple(Mutant(name, file, old, new, layers) for name, old, new in mutants)


def mutated(mutant: Mutant, text: str) -> str:
    """The text of the mutant's file with the mutant in it. Raises Stale."""
    times = text.count(mutant.old)
    if times != 1:
        raise Stale(f"the old text occurs {times} times in {mutant.file}")
    changed = text.replace(mutant.old, mutant.new)
    try:
        tree = ast.parse(changed, mutant.file)
    except SyntaxError as error:
        raise Stale(f"the new text is no Python: {error}") from error
    if ast.dump(tree) == _meaning(text):
        raise Stale("the new text says the same as the old one")
    return changed


@functools.lru_cache(maxsize=4)
def _meaning(text: str) -> str:
    return ast.dump(ast.parse(text))


class Stale(Exception):
    """A mutant that no longer fits the code that it was written for."""


def stale(mutants: Iterable[Mutant], root: Path) -> list[str]:
    """What is wrong with a list, held against the tree at `root`: one line for each finding."""
    findings: list[str] = []
    names: set[str] = set()
    for mutant in mutants:
        if mutant.name in names:
            findings.append(f"{mutant.name}: two mutants of this name")
        names.add(mutant.name)
        if not mutant.layers:
            findings.append(f"{mutant.name}: nothing to kill it")
        try:
            mutated(mutant, (root / mutant.file).read_text())
        except (OSError, Stale) as error:
            findings.append(f"{mutant.name}: {error}")
        missing = [path for layer in mutant.layers for path in _absent(layer, root)]
        findings += [f"{mutant.name}: there is no {path}" for path in missing]
    return findings


def _absent(layer: str, root: Path) -> list[str]:
    paths = [word.partition("::")[0] for word in layer.split() if word.startswith("tests/")]
    return [path for path in paths if not (root / path).exists()]


SIMULATOR = "sim "
"""How a layer of the simulator begins: `sim points 0 12` is its seeds 0 to 11."""

SMALL_WORLDS = "worlds "
"""How the small worlds begin: `worlds 3 0` is every order of 3 requests and 0 steps of time."""


def command_of(layer: str, python: str) -> list[str]:
    """What to run for a layer: seeds of the simulator, small worlds, or arguments for pytest.

    Exits with 0 when all is well, at the first thing that is not. Hypothesis always tries the same
    examples, so that a kill is a kill the next time, too; and does not look for smaller ones.
    """
    if layer.startswith(SIMULATOR):
        name, first, count = layer.removeprefix(SIMULATOR).split()
        run = "from tests.sim.layers import run_seeds; run_seeds"
        return [python, "-c", f"{run}({name!r}, {int(first)}, {int(count)})"]
    if layer.startswith(SMALL_WORLDS):
        requests, time_steps = map(int, layer.removeprefix(SMALL_WORLDS).split())
        run = "from tests.sim.small_worlds import Explored, explore, first_world; explore"
        return [python, "-c", f"{run}(first_world({requests}, {time_steps}), Explored())"]
    quietly = ["-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    always_the_same = ["-p", "tests.mutants.same_examples", "--hypothesis-seed=0"]
    return [python, "-m", "pytest", *quietly, *always_the_same, *layer.split()]
