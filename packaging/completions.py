"""Writes what bash, zsh and fish complete after `cortexd`, from the command line itself.

Owns the three shells' ways to say the same: at a command come its verbs and flags; after a flag
that takes a value come its choices, files or folders, and nothing where nobody can know.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from command_line import FILES, FOLDERS, Argument, Command, cortexd

WRITTEN = "# Completions of cortexd, written from its command line when the package was built."

_BASH = """\
_cortexd() {{
  local at=cortexd before=cortexd word=$2 each words= files=
  for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    [[ $each == = ]] && continue # --flag=value comes as three words
    before=$each
    case "$at $each" in
      {descent}) at+=" $each" ;;
    esac
  done
  case "$at $before" in
{values}
    *)
      case $at in
{words}
      esac
      ;;
  esac
  COMPREPLY=()
  [[ -z $words ]] || mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  if [[ -n $files && $word != -* ]]; then
    compopt -o filenames 2> /dev/null
    mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen "$files" -- "$word")
  fi
}}
complete -F _cortexd cortexd
"""


def bash(command: Command) -> str:
    """A file for /usr/share/bash-completion/completions."""
    below = [quoted(" ".join(each.words)) for each in command.all() if each is not command]
    values = [line for each in command.all() for line in bash_values(each)]
    words = [bash_words(each) for each in command.all()]
    filled = _BASH.format(
        descent=" | ".join(below), values="\n".join(values), words="\n".join(words)
    )
    return f"{WRITTEN}\n{filled}"


def bash_values(command: Command) -> Iterator[str]:
    """What comes after each flag that takes a value."""
    for option in command.options:
        if option.value:
            asked = [quoted(" ".join((*command.words, flag))) for flag in option.flags]
            yield f"    {' | '.join(asked)}) {bash_kind(option)} ;;"


def bash_words(command: Command) -> str:
    """What comes at the command itself: what can follow it, its flags, and its operands."""
    words = [each.name for each in command.below]
    words += [flag for option in command.options for flag in option.flags]
    words += [choice for operand in command.operands for choice in operand.choices]
    kinds = [bash_kind(operand) for operand in command.operands if not operand.choices]
    sets = [f"words={quoted(' '.join(words))}", *(kind for kind in kinds if kind != ":")]
    return f"        {quoted(' '.join(command.words))}) {' '.join(sets)} ;;"


def bash_kind(argument: Argument) -> str:
    """How the values of an argument are looked for."""
    if argument.choices:
        return f"words={quoted(' '.join(argument.choices))}"
    if argument.value in FILES:
        return "files=-f"
    return "files=-d" if argument.value in FOLDERS else ":"


def zsh(command: Command) -> str:
    """A file for a folder in zsh's `fpath`, to be called `_cortexd`."""
    functions = [zsh_function(each) for each in command.all()]
    return "\n".join(["#compdef cortexd", WRITTEN, *functions, '_cortexd "$@"', ""])


def zsh_function(command: Command) -> str:
    """The function that completes one command."""
    name = zsh_name(command)
    specs = [quoted(spec) for option in command.options for spec in zsh_option(option)]
    specs += [
        quoted(f"{'*' if each.repeats else ''}:{zsh_value(each)}") for each in command.operands
    ]
    if not command.below:
        return "\n".join([f"{name}() {{", f"  _arguments {' '.join(specs)}", "}"])
    listed = [quoted(f"{each.name}:{each.summary}") for each in command.below]
    cases = [f"      {each.name}) {zsh_name(each)} ;;" for each in command.below]
    return "\n".join(
        [
            f"{name}() {{",
            "  local curcontext=$curcontext state",
            f"  local -a below=({' '.join(listed)})",
            f"  _arguments -C {' '.join(specs)} '1: :->first' '*:: :->rest'",
            "  case $state in",
            "    first) _describe -t commands command below ;;",
            "    rest) case $words[1] in",
            *cases,
            "    esac ;;",
            "  esac",
            "}",
        ]
    )


def zsh_name(command: Command) -> str:
    """What the command's function is called."""
    return "_" + "_".join(command.words)


def zsh_option(option: Argument) -> Iterator[str]:
    """One flag, as `_arguments` wants it; of several names only one can be given."""
    summary = option.summary.replace("[", r"\[").replace("]", r"\]")
    others = f"({' '.join(option.flags)})" if len(option.flags) > 1 else ""
    for flag in option.flags:
        takes = f"={'[' + summary + ']'}:{zsh_value(option)}" if option.value else f"[{summary}]"
        yield f"{others}{flag}{takes}"


def zsh_value(argument: Argument) -> str:
    """The name of a value, and how it is completed; a space: not at all."""
    name = argument.value.replace(":", r"\:")
    if argument.choices:
        return f"{name}:({' '.join(argument.choices)})"
    if argument.value in FILES:
        return f"{name}:_files"
    return f"{name}:_files -/" if argument.value in FOLDERS else f"{name}: "


def fish(command: Command) -> str:
    """A file for fish's `vendor_completions.d`."""
    lines = [line for each in command.all() for line in fish_lines(each)]
    return "\n".join([WRITTEN, "complete -c cortexd -f", *lines, ""])


def fish_lines(command: Command) -> Iterator[str]:
    """What is completed while this is the command that has been typed so far."""
    seen = [f"__fish_seen_subcommand_from {word}" for word in command.words[1:]]
    if command.below:
        names = " ".join(each.name for each in command.below)
        seen.append(f"not __fish_seen_subcommand_from {names}")
    here = f"complete -c cortexd -n {fish_quoted('; and '.join(seen))}"
    for each in command.below:
        yield f"{here} -a {each.name} -d {fish_quoted(each.summary)}"
    for option in command.options:
        flags = [f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in option.flags]
        takes = fish_value(option) if option.value else ""
        yield f"{here} {' '.join(flags)}{takes} -d {fish_quoted(option.summary)}"
    if any(operand.value in FILES for operand in command.operands):
        yield f"{here} -F"


def fish_value(argument: Argument) -> str:
    """How the value of a flag is completed."""
    if argument.choices:
        return f" -x -a {fish_quoted(' '.join(argument.choices))}"
    if argument.value in FILES:
        return " -r -F"
    return " -x -a '(__fish_complete_directories)'" if argument.value in FOLDERS else " -x"


def quoted(words: str) -> str:
    """One word for bash and zsh."""
    return "'" + words.replace("'", "'\\''") + "'"


def fish_quoted(words: str) -> str:
    """One word for fish."""
    return "'" + words.replace("\\", "\\\\").replace("'", "\\'") + "'"


#: Shell -> what writes its file.
SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}

if __name__ == "__main__":
    sys.stdout.write(SHELLS[sys.argv[1]](cortexd()))
