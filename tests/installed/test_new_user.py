"""The manual's way from the package to the first answer, walked as it is written."""

import re
from collections.abc import Iterator

import pytest

from tests.installed.conftest import Packages
from tests.installed.machine import ROOT, Machine
from tests.installed.site import CONFIG_FILE, Site
from tests.test_manual import blocks, section_with_blocks

pytestmark = pytest.mark.slow

INSTALL = section_with_blocks("operations.md", "Install")
[TRANSCRIPT] = blocks(INSTALL, "console")
[CONFIGURATION] = blocks(INSTALL, "yaml")

#: What a machine without people has in place of these: root does what is asked of sudo, and the
#: editor writes what the manual shows.
SUDO = '#!/bin/sh\nexec "$@"\n'
SUDOEDIT = '#!/bin/sh\nexec cp /srv/as-the-manual-says.yaml "$1"\n'


def steps(transcript: str) -> Iterator[tuple[str, str]]:
    """Each command of a transcript, and what comes back."""
    for step in re.split(r"(?m)^\$ ", transcript)[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n?", step)
        assert command is not None
        yield command[0].strip(), step[command.end() :]


def agrees(shown: str, written: str) -> bool:
    """Whether something is as it was written down, `...` being anything."""
    pattern = ".*".join(re.escape(part) for part in written.rstrip("\n").split("..."))
    return re.fullmatch(pattern, shown.strip("\n"), re.DOTALL) is not None


@pytest.mark.parametrize(
    ("shown", "written", "same"),
    [
        ("one\ntwo\nthree\n", "one\n...\nthree\n", True),
        ("one\ntwo\n", "one\n", False),
        ("one\n", "", False),
        ("", "", True),
        ('{"spent":12}', '{"spent":...}', True),
        ('{"spend":12}', '{"spent":...}', False),
    ],
)
def test_three_dots_are_anything_and_all_else_is_itself(
    shown: str, written: str, same: bool
) -> None:
    assert agrees(shown, written) is same


def test_a_new_user_gets_from_the_package_to_the_first_answer(
    machine: Machine, packages: Packages
) -> None:
    Site(machine).start_neuron(port=8080, model="Qwen/Qwen3-8B")
    machine.run("cp", str(packages.this), "/srv/")
    machine.write("/srv/as-the-manual-says.yaml", CONFIGURATION)
    for name, script in (("sudo", SUDO), ("sudoedit", SUDOEDIT)):
        machine.write(f"/usr/local/bin/{name}", script)
        machine.run("chmod", "755", f"/usr/local/bin/{name}")
    machine.write("/etc/apt/apt.conf.d/99-nobody-there", 'APT::Get::Assume-Yes "true";\n')
    machine.write("/.curlrc", "no-progress-meter\n")  # as on a terminal
    commands = list(steps(TRANSCRIPT))
    assert len(commands) >= 6
    for command, written in commands:
        shown = machine.shell(f"cd /srv; export PATH=/usr/local/bin:$PATH; {command}")
        assert agrees(shown, written), f"$ {command}\n{shown}"


def test_what_it_leaves_is_as_the_manual_says(machine: Machine) -> None:
    """Every path that the manual's table names, but for the one that need not exist."""
    table = re.findall(r"(?m)^\| `(/[^`]+)` \|.*$", INSTALL)
    assert len(table) >= 4
    for path in table:
        if path != "/etc/default/cortexd":
            machine.run("test", "-e", path)
    assert machine.run("stat", "--format=%a %U %G", CONFIG_FILE) == "640 root cortexd\n"
    assert (
        machine.run("cat", "/usr/share/doc/cortexd/manual/operations.md")
        == (ROOT / "cortexd/manual/operations.md").read_text()
    )
