"""The list fits the code, and the machinery tells a killed mutant from one that lives.

The whole list is for releases (`make mutants`): it takes minutes.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutants.__main__ import ROOT, main, report, run
from tests.mutants.every import MUTANTS
from tests.mutants.mutant import Mutant, Stale, command_of, mutated, stale
from tests.mutants.trial import Tree, Verdict

CODE = "def twice(number):\n    return number + number\n"
TEST = "from cortexd.numbers import twice\n\n\ndef test_twice():\n    assert twice(3) == 6\n"
LAYER = "tests/test_numbers.py"


def mutant(old: str, new: str, *layers: str) -> Mutant:
    return Mutant(f"{old} becomes {new}", "cortexd/numbers.py", old, new, layers or (LAYER,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with one module, one test, and what runs mutants."""
    root = tmp_path / "root"
    (root / "cortexd").mkdir(parents=True)
    (root / "cortexd/__init__.py").touch()
    (root / "cortexd/numbers.py").write_text(CODE)
    mutants = root / "tests/mutants"
    mutants.mkdir(parents=True)
    (root / "tests/test_numbers.py").write_text(TEST)
    for name in ("__init__.py", "same_examples.py"):
        (mutants / name).write_text((ROOT / "tests/mutants" / name).read_text())
    return root


def said(capsys: pytest.CaptureFixture[str]) -> Sequence[str]:
    return capsys.readouterr().out.splitlines()


# The list


def test_every_mutant_fits_the_code_as_it_is() -> None:
    findings = stale(MUTANTS, ROOT)
    assert not findings, "\n".join(["", *findings])


def test_there_are_mutants_of_every_part_that_keeps_the_cap() -> None:
    ledger = {path.name for path in (ROOT / "cortexd/ledger").glob("*.py")}
    only_words = {"__init__.py", "journal_log.py", "meanings.py"}
    files = {Path(mutant.file).name for mutant in MUTANTS}
    assert ledger - files == only_words
    offline = {path.name for path in (ROOT / "cortexd/cli").glob("ledger*.py")}
    assert offline - files == {"ledger_words.py"}
    assert {"upper_bound.py", "pipeline.py", "auth.py", "budget.py"} <= files


def test_the_list_is_printed_without_running_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "charging.py", "--only", "a window is one tick"]) == 0
    *lines, total = said(capsys)
    assert len(lines) == int(total.split()[0]) > 5
    assert any("a window is one tick short" in line for line in lines)


def test_a_text_that_no_mutant_has_is_a_wrong_call() -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--only", "no such mutant"])
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("number - number", "0", "occurs 0 times"),
        ("number", "n", "occurs 3 times"),
        ("number + number", "number +", "no Python"),
        ("number + number", "(number + number)  # again", "says the same"),
    ],
)
def test_a_mutant_that_does_not_fit_is_stale(old: str, new: str, what: str) -> None:
    with pytest.raises(Stale, match=what):
        mutated(mutant(old, new), CODE)


def test_everything_that_is_wrong_with_a_list_is_told(root: Path) -> None:
    good = mutant("number + number", "number * number")
    missing = Mutant("of nothing", "cortexd/none.py", "a", "b", ("tests/none.py::test",))
    careless = Mutant("careless", good.file, good.old, good.new, ())
    findings = stale([good, good, missing, careless], root)
    assert [finding.partition(": ")[0] for finding in findings] == [
        good.name,
        "of nothing",
        "of nothing",
        "careless",
    ]
    assert stale([good], root) == []


# The machinery


@pytest.mark.slow
def test_a_mutant_is_killed_survives_or_is_stale(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = mutant("number + number", "number * number")
    alive = mutant("number + number", "2 * number")
    gone = mutant("number - number", "0")
    careless = mutant("number + number", "number + another")
    assert run([killed, alive, gone, careless], workers=2, root=root) == 1
    lines = said(capsys)
    assert any(
        "by tests/test_numbers.py: tests/test_numbers.py::test_twice" in line for line in lines
    )
    assert lines[-1].startswith("1 of 4 mutants killed, 1 survived, 2 no longer fit")
    assert any(line.startswith("SURVIVED") and alive.name in line for line in lines)
    assert any(line.startswith("STALE") and gone.name in line for line in lines)
    assert any("NameError" in line for line in lines)
    assert (root / "cortexd/numbers.py").read_text() == CODE, "the shared tree was changed"


def test_only_when_every_mutant_was_killed_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    one = mutant("number + number", "number * number")
    killed = Verdict(one, "killed", 0.1, LAYER, "I2: wrong", "I2")
    assert report([killed, killed], seconds=1) == 0
    assert "kills that named an invariant: I2 2" in said(capsys)
    assert report([killed, Verdict(one, "SURVIVED", 0.1)], seconds=1) == 1
    assert report([killed, Verdict(one, "STALE", 0.1, said="gone")], seconds=1) == 1


@pytest.mark.slow
def test_nothing_is_tried_where_the_unbroken_tree_fails(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "tests/test_numbers.py").write_text(TEST.replace("6", "7"))
    assert run([mutant("number + number", "number * number")], workers=1, root=root) == 1
    lines = said(capsys)
    assert lines[0].startswith("the unbroken tree fails")
    assert not any(line.startswith("killed") for line in lines)


@pytest.mark.slow
def test_a_mutant_that_never_ends_is_killed_by_the_clock(root: Path) -> None:
    endless = mutant("return number + number", "while True: pass")
    verdict = Tree(root).try_mutant(endless, {LAYER: 2.0})
    assert (verdict.kind, verdict.said) == ("killed", "no end within 2 s")
    assert (root / "cortexd/numbers.py").read_text() == CODE


@pytest.mark.slow
def test_a_layer_of_the_simulator_kills_a_real_mutant_and_names_what_broke(tmp_path: Path) -> None:
    """The real tree, a real mutant: the copy is what runs, not the checkout."""
    tree = Tree.copy(ROOT, tmp_path)
    (open_ones,) = [each for each in MUTANTS if each.name == "the cap is one token too large"]
    layer = "sim fuzz 0 20"
    assert tree.run(layer).passed
    broken = Mutant(open_ones.name, open_ones.file, open_ones.old, open_ones.new, (layer,))
    verdict = tree.try_mutant(broken, {})
    assert verdict.kind == "killed"
    assert verdict.layer == layer
    assert "fuzz" in verdict.said
    assert tree.run(layer).passed, "the copy was not mended"


def test_each_layer_has_a_command() -> None:
    assert "run_seeds('points', 3, 4)" in command_of("sim points 3 4", "python")[-1]
    assert "first_world(3, 0)" in command_of("worlds 3 0", "python")[-1]
    assert command_of("tests/a.py -k b", "python")[-3:] == ["tests/a.py", "-k", "b"]
