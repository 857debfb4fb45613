"""The command line as data: complete, and the same on every terminal."""

import argparse

import command_line
import pytest
from command_line import Argument, Command

from cortexd.cli import main as cli


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every parser there is, by how its command is called."""
    found = {"cortexd": cli._parser(tuple(cli.VERBS))}
    waiting = list(found.items())
    while waiting:
        words, parser = waiting.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                below = {f"{words} {name}": child for name, child in action.choices.items()}
                found |= below
                waiting += below.items()
    return found


def shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What its help tells of; that `--version` works behind verbs too is no news there."""
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def test_every_parser_is_there_with_every_flag_it_takes() -> None:
    """Compared with a walk of its own over argparse, so that nothing can be forgotten twice."""
    described = {" ".join(each.words): each for each in command_line.cortexd().all()}
    assert {name: sorted(flags_of(each)) for name, each in described.items()} == {
        name: sorted(flag for action in shown(parser) for flag in action.option_strings)
        for name, parser in parsers().items()
    }


def flags_of(command: Command) -> list[str]:
    """All names of all flags."""
    return [flag for option in command.options for flag in option.flags]


@pytest.mark.parametrize("command", list(command_line.cortexd().all()), ids=lambda each: each.name)
def test_everything_says_what_it_is(command: Command) -> None:
    assert command.summary
    assert command.description
    assert [argument for argument in command.arguments if not argument.summary] == []


def test_a_usage_line_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [each.usage for each in command_line.cortexd().all()]
    monkeypatch.setenv("COLUMNS", "20")
    assert [each.usage for each in command_line.cortexd().all()] == wide
    assert not any("\n" in usage for usage in wide)


def invented() -> argparse.ArgumentParser:
    """A parser with every kind of argument there is."""
    parser = argparse.ArgumentParser(prog="tool", add_help=False, description="Does it.")
    parser.add_argument("file", metavar="FILE", help="which")
    parser.add_argument("more", nargs="*", help="others")
    parser.add_argument(
        "--count", "-c", type=int, default=3, help="how many (default: %(default)s)"
    )
    parser.add_argument("--form", choices=["a", "b"])
    parser.add_argument("--quick", action="store_true", help="hurry")
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    return parser


def test_each_kind_of_argument_comes_out_as_what_it_is() -> None:
    command = command_line.described(invented(), ("tool",), "does it")
    assert command.arguments == (
        Argument((), "FILE", "which"),
        Argument((), "MORE", "others", repeats=True),
        Argument(("--count", "-c"), "COUNT", "how many (default: 3)"),
        Argument(("--form",), "FORM", "one of a, b", ("a", "b")),
        Argument(("--quick",), "", "hurry"),
    )
    assert (command.operands, command.options) == (command.arguments[:2], command.arguments[2:])
