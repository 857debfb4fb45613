"""What the shells complete, asked of the shells themselves."""

import os
import pty
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import command_line
import completions
import pytest
from command_line import Command

COMMANDS = list(command_line.cortexd().all())
PATIENCE_SECONDS = 20

Complete = Callable[[str], list[str]]


def needs(shell: str) -> pytest.MarkDecorator:
    """Skip where the shell is missing."""
    reason = f"no {shell} here: apt install {shell}"
    return pytest.mark.skipif(shutil.which(shell) is None, reason=reason)


def ask_bash(file: Path, line: str) -> list[str]:
    """What bash would complete at the end of a line, with its own way to split it into words."""
    words = line.replace("=", " = ").split(" ")
    words = [word for word in words[:-1] if word] + words[-1:]
    script = (
        'source "$1"; COMP_WORDS=("${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n'
        '_cortexd cortexd "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"\n'
        '((${#COMPREPLY[@]} == 0)) || printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return output(["bash", "-c", script, "bash", str(file), *words], file.parent)


def ask_fish(file: Path, line: str) -> list[str]:
    """What fish would complete at the end of a line."""
    script = "source $argv[1]; complete -C $argv[2]"
    lines = output(["fish", "--no-config", "-c", script, str(file), line], file.parent)
    return [each.partition("\t")[0] for each in lines]


def output(command: Sequence[str], directory: Path) -> list[str]:
    """The lines that a command prints; it has to be silent otherwise."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


class Zsh:
    """zsh on a terminal: its completion only runs in the line editor."""

    SET_UP = """
        PROMPT= RPROMPT= PROMPT_EOL_MARK= LISTMAX=9999
        unset zle_bracketed_paste
        fpath=($ZDOTDIR $fpath)
        autoload -Uz compinit && compinit -D -u
        tell-choices() { zle list-choices; zle -R; zle -I; BUFFER=; print done-here }
        zle -N tell-choices
        bindkey '^]' tell-choices
        """

    def __init__(self, folder: Path) -> None:
        (folder / ".zshrc").write_text(self.SET_UP)
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "ZDOTDIR": str(folder)}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe("zsh", ["zsh", "-d", "-i"], environment)
        self._type(" ")  # it tells, once it reads keys, that it does

    def complete(self, line: str) -> list[str]:
        """All words that the terminal shows when the list of completions is asked for."""
        return self._type(line).replace(line.strip(), "").split()

    def _type(self, line: str) -> str:
        """One key does it all: what is typed ahead keeps zsh from showing anything in between."""
        os.write(self.terminal, line.encode() + b"\x1d")
        shown = b""
        while b"done-here" not in shown:
            ready, _, _ = select.select([self.terminal], [], [], PATIENCE_SECONDS)
            assert ready, f"zsh says nothing any more after {shown!r}"
            shown += os.read(self.terminal, 65536)
        return shown.decode()

    def end(self) -> None:
        """Its terminal goes, and it with it."""
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


@pytest.fixture(params=[pytest.param(shell, marks=needs(shell)) for shell in completions.SHELLS])
def complete(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Complete]:
    """Asks a shell what it would complete; a folder and a file are there."""
    shell: str = request.param
    file = tmp_path / "_cortexd"
    file.write_text(completions.SHELLS[shell](command_line.cortexd()))
    (tmp_path / "fleet.yaml").write_text("")
    (tmp_path / "fleet.d").mkdir()
    if shell == "zsh":
        zsh = Zsh(tmp_path)
        yield zsh.complete
        zsh.end()
    else:
        ask = ask_bash if shell == "bash" else ask_fish
        yield lambda line: ask(file, line)


def test_every_command_is_completed_with_what_can_follow_it(complete: Complete) -> None:
    for command in COMMANDS:
        shown = complete(" ".join(command.words) + " ")
        assert {each.name for each in command.below} <= set(shown), command.words


def test_every_flag_is_completed_where_it_belongs_and_nowhere_else(complete: Complete) -> None:
    every = {flag for command in COMMANDS for flag in long_flags(command)}
    for command in COMMANDS:
        shown = {word.partition("=")[0] for word in complete(" ".join(command.words) + " --")}
        assert shown & every == long_flags(command), command.words


def long_flags(command: Command) -> set[str]:
    """Its flags, without those of one letter."""
    return {flag for option in command.options for flag in option.flags if flag.startswith("--")}


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("cortexd check-config fl", {"fleet.yaml"}, set()),
        ("cortexd serve --config fl", {"fleet.yaml"}, set()),
        ("cortexd demo --model fl", {"fleet.yaml"}, set()),
        ("cortexd demo --engine-path fl", {"fleet.yaml"}, set()),
        ("cortexd load --socket fl", {"fleet.yaml"}, set()),
        ("cortexd client-config curl --model fl", set(), {"fleet.yaml"}),
        ("cortexd ledger show --directory fl", {"fleet.d"}, {"fleet.yaml"}),
        ("cortexd ledger export --format ", {"table", "json", "csv"}, {"fleet.yaml", "--key"}),
        ("cortexd serve --listen ", set(), {"fleet.yaml", "serve", "--config"}),
        ("cortexd status ", set(), {"fleet.yaml", "serve"}),
    ],
)
def test_values_are_completed_as_what_they_are(
    complete: Complete, line: str, wanted: set[str], unwanted: set[str]
) -> None:
    shown = {word.rstrip("/") for word in complete(line)}
    assert wanted <= shown
    assert not unwanted & shown


def test_bash_completes_a_value_after_an_equals_sign(tmp_path: Path) -> None:
    """bash takes `--config=FILE` for three words."""
    file = tmp_path / "_cortexd"
    file.write_text(completions.bash(command_line.cortexd()))
    assert ask_bash(file, "cortexd serve --config=_cor") == ["_cortexd"]
    assert ask_bash(file, "cortexd ledger export --format=j") == ["json"]
