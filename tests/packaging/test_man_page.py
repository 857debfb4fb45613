"""The manual page: it has every verb and flag, and troff has nothing to say against it."""

import re
import shutil
import subprocess

import command_line
import man_page
import pytest
from command_line import Command

PAGE = man_page.man_page(command_line.cortexd())


def plain(troff: str) -> str:
    """What is left of it on paper, near enough."""
    return re.sub(r"\\f[BIR]|\\&", "", troff).replace(r"\-", "-").replace(r"\(aq", "'")


def section_of(command: Command) -> str:
    """What the page says under the heading of one command."""
    return plain(PAGE).partition(f"\n.SS {' '.join(command.words)}\n")[2].partition("\n.S")[0]


@pytest.mark.parametrize(
    "command", list(command_line.cortexd().all())[1:], ids=lambda each: " ".join(each.words)
)
def test_a_command_has_a_section_with_its_arguments(command: Command) -> None:
    section = section_of(command)
    for argument in command.arguments:
        heading = ", ".join(argument.flags) or argument.value
        assert f"\n.TP\n{heading}" in section or argument.flags == ("-h", "--help")
    assert section.splitlines()[0] == command.usage.replace(" [-h]", "")


def test_the_page_is_the_same_every_time() -> None:
    assert man_page.man_page(command_line.cortexd()) == PAGE


@pytest.mark.parametrize(
    ("words", "troff"),
    [
        ("a-b", r"a\-b"),
        (".TH is no heading", r"\&.TH is no heading"),
        ("'quoted' from the first", r"\(aqquoted\(aq from the first"),
        ("C:\\ and `cd`", r"C:\e and \(gacd\(ga"),
    ],
)
def test_nothing_in_a_text_is_taken_for_a_request(words: str, troff: str) -> None:
    assert man_page.text(words) == troff


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here: apt install groff-base")
def test_groff_has_no_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z"], input=PAGE, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
