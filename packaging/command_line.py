"""What the command line of cortexd looks like, as data: for the manual page and the completions.

Everything is read from the parsers that also do the parsing, so that what a shell completes and a
manual page says cannot differ from what cortexd accepts, and a new verb appears by itself. Knows
neither troff nor any shell.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from cortexd.cli import main as command_line

#: What is completed with files and folders, by the name that its value has in the help.
FILES = frozenset({"FILE", "FILE.gguf", "PATH"})
FOLDERS = frozenset({"DIR"})


@dataclass(frozen=True)
class Argument:
    """A flag, or a value that stands by itself.

    `flags` is empty for the latter; `value` is the name that its value has in the help, or empty
    for a flag that takes none; `choices` are the only values there are; `repeats`: any number of
    them may follow.
    """

    flags: tuple[str, ...]
    value: str
    summary: str
    choices: tuple[str, ...] = ()
    repeats: bool = False


@dataclass(frozen=True)
class Command:
    """`cortexd`, one of its verbs, or what can follow one. `words` is how it is called."""

    words: tuple[str, ...]
    usage: str
    summary: str
    description: str
    epilog: str
    arguments: tuple[Argument, ...]
    below: tuple["Command", ...]

    @property
    def name(self) -> str:
        """Its last word."""
        return self.words[-1]

    @property
    def options(self) -> tuple[Argument, ...]:
        """The arguments that are flags."""
        return tuple(argument for argument in self.arguments if argument.flags)

    @property
    def operands(self) -> tuple[Argument, ...]:
        """The arguments that stand by themselves."""
        return tuple(argument for argument in self.arguments if not argument.flags)

    def all(self) -> Iterator["Command"]:
        """This one and all below it, in the order of the help."""
        yield self
        for command in self.below:
            yield from command.all()


def cortexd() -> Command:
    """The whole command line."""
    parser = command_line._parser(tuple(command_line.VERBS))
    return described(parser, ("cortexd",), parser.description or "")


def described(parser: argparse.ArgumentParser, words: tuple[str, ...], summary: str) -> Command:
    """A parser and those below it."""
    below: list[Command] = []
    arguments: list[Argument] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
            children: Mapping[str, argparse.ArgumentParser] = action.choices
            for name, child in children.items():
                below.append(described(child, (*words, name), summaries.get(name, "")))
        elif action.help is not argparse.SUPPRESS:
            arguments.append(argument_of(parser, action))
    return Command(
        words=words,
        usage=usage_of(parser),
        summary=summary,
        description=parser.description or summary,
        epilog=parser.epilog or "",
        arguments=tuple(arguments),
        below=tuple(below),
    )


def argument_of(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    """One argument, its help with defaults filled in as the help shows it."""
    takes_value = action.nargs != 0
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    choices = tuple(map(str, action.choices or ()))
    summary = parser._get_formatter()._expand_help(action) if action.help else ""
    return Argument(
        flags=tuple(action.option_strings),
        value=name if takes_value else "",
        summary=summary or ("one of " + ", ".join(choices) if choices else ""),
        choices=choices,
        repeats=action.nargs in ("*", "+"),
    )


def usage_of(parser: argparse.ArgumentParser) -> str:
    """The line after `usage:`, however wide the terminal of whoever builds is."""
    formatter = argparse.HelpFormatter(parser.prog, width=10_000)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, "")
    return formatter.format_help().strip()
