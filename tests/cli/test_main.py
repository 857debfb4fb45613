"""The command line as a shell sees it: exit codes, help, and silence where nobody listens."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cortexd import __version__
from cortexd.cli import main as command_line
from cortexd.cli.main import INTERRUPTED, VERBS, main

ROOT = Path(__file__).resolve().parent.parent.parent
Run = Callable[[argparse.Namespace], int]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Makes `cortexd serve` run the given function instead of the daemon."""

    def install(run: Run) -> None:
        class Module:
            @staticmethod
            def add_parser(subparsers: "command_line.Subparsers[argparse.ArgumentParser]") -> None:
                parser = subparsers.add_parser("serve")
                parser.add_argument("--level", type=int, default=0)
                parser.set_defaults(run=run)

        monkeypatch.setattr(command_line, "import_module", lambda name: Module)

    return install


def run_python(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` in the checkout."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, **more)  # type: ignore[call-overload,no-any-return]


def test_version_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cortexd {__version__}\n"


@pytest.mark.parametrize("words", [*([verb] for verb in VERBS), ["ledger", "verify"]])
def test_the_version_is_told_behind_every_verb(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--version"]) == 0
    assert capsys.readouterr().out == f"cortexd {__version__}\n"


def test_version_imports_no_verb() -> None:
    """It is what scripts call to find out whether cortexd is there."""
    code = (
        "import sys; from cortexd.cli.main import main; main(['--version']);"
        "print(sorted({'trio', 'httpx', 'msgspec', 'hypercorn', 'yaml'} & set(sys.modules)))"
    )
    assert run_python("-c", code).stdout.splitlines()[-1] == "[]"


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n    {verb}" not in text] == []


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: cortexd {name}" in capsys.readouterr().out


def test_no_verb_prints_the_help_to_standard_error_and_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "serve" in captured.err


def test_an_unknown_verb_is_wrong_usage_and_says_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sevre"]) == 2
    assert "'serve'" in capsys.readouterr().err


def test_an_unknown_flag_is_wrong_usage(
    verb: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(lambda options: 0)
    assert main(["serve", "--listne", "x"]) == 2
    assert "--listne" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_verbs(verb: Callable[[Run], None], code: int) -> None:
    verb(lambda options: code + options.level)
    assert main(["serve"]) == code


def test_a_verb_gets_its_options(verb: Callable[[Run], None]) -> None:
    verb(lambda options: int(options.level))
    assert main(["serve", "--level", "1"]) == 1


@pytest.mark.parametrize(
    "interruption",
    [
        KeyboardInterrupt(),
        BaseExceptionGroup("trio", [KeyboardInterrupt()]),
        BaseExceptionGroup("trio", [BaseExceptionGroup("nursery", [KeyboardInterrupt()])]),
    ],
)
def test_ctrl_c_is_quiet(verb: Callable[[Run], None], interruption: BaseException) -> None:
    def run(options: argparse.Namespace) -> int:
        raise interruption

    verb(run)
    assert main(["serve"]) == INTERRUPTED


@pytest.mark.parametrize(
    "bug",
    [
        ZeroDivisionError(),
        BaseExceptionGroup("both", [KeyboardInterrupt(), ZeroDivisionError()]),
        BrokenPipeError("a socket's, not standard output's"),
    ],
)
def test_a_bug_in_a_verb_is_not_hidden(verb: Callable[[Run], None], bug: BaseException) -> None:
    def run(options: argparse.Namespace) -> int:
        raise bug

    verb(run)
    with pytest.raises(type(bug)) as raised:
        main(["serve"])
    assert raised.value is bug


PRINTING = """
import sys; from cortexd.cli import main as m
class Module:
    @staticmethod
    def add_parser(subparsers):
        parser = subparsers.add_parser('status')
        parser.set_defaults(run=lambda o: print('x' * {letters}, flush={flushed}) or 0)
m.import_module = lambda name: Module
sys.exit(m.main(['status']))
"""


def printing_into(output: object, letters: int, *, flushed: bool) -> tuple[int, str]:
    """Exit code and standard error of a verb that prints so many letters there."""
    command = [sys.executable, "-c", PRINTING.format(letters=letters, flushed=flushed)]
    done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True)  # type: ignore[call-overload]
    return done.returncode, done.stderr


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("letters", [1, 99_999])
def test_a_reader_that_has_gone_away_is_no_fault(letters: int, flushed: bool) -> None:
    """As in ``cortexd status | head -1``."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as nobody:
        assert printing_into(nobody, letters, flushed=flushed) == (1, "")


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("letters", [1, 99_999])
def test_output_that_cannot_be_written_is_one_line_and_a_failure(
    letters: int, flushed: bool
) -> None:
    why = "cortexd: standard output cannot be written: No space left on device\n"
    with Path("/dev/full").open("w") as full:
        assert printing_into(full, letters, flushed=flushed) == (1, why)


@pytest.mark.parametrize(
    "arguments", ["--version", "--help", "client-config", "client-config curl"]
)
@pytest.mark.parametrize(
    ("output", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_what_was_asked_for_and_cannot_be_said_is_a_failure(
    arguments: str, output: str, why: str
) -> None:
    command = f"{shlex.quote(sys.executable)} -m cortexd {arguments} {output}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"cortexd: standard output cannot be written: {why}"
    assert "Traceback" not in done.stderr


def test_output_that_can_be_written_is_what_it_was() -> None:
    code = (
        "import sys; from cortexd.cli import main as m\n"
        "before = (sys.stdout.encoding, sys.stdout.errors, sys.stdout.fileno())\n"
        "m.main(['--version'])\n"
        "assert (sys.stdout.encoding, sys.stdout.errors, sys.stdout.fileno()) == before\n"
        "print('caf\u00e9')"
    )
    assert run_python("-c", code).stdout == f"cortexd {__version__}\ncaf\u00e9\n"


def test_python_minus_m_cortexd_is_the_same_program() -> None:
    done = run_python("-m", "cortexd", "--version")
    assert (done.returncode, done.stdout) == (0, f"cortexd {__version__}\n")
