"""The machine that everything here is tried on keeps to itself."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.installed.machine import PREFIX, booted, cgroups, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=f"no machine can be booted: {why_not()}"),
]


def left_behind() -> set[Path]:
    """What our machines make on the host while they run."""
    hierarchy = cgroups()
    assert hierarchy is not None
    places = (hierarchy, Path(tempfile.gettempdir()))
    return {path for place in places for path in place.glob(f"{PREFIX}*")}


def test_nothing_that_is_done_to_a_machine_reaches_the_host() -> None:
    name = os.uname().nodename
    with booted() as machine:
        assert machine.run("cat", "/proc/1/comm") == "systemd\n"
        machine.write("/etc/tried-by-a-test", "tried")
        machine.run("hostname", "another")
        links = machine.run("ls", "/sys/class/net").split()
        assert len(left_behind()) == 3
    assert not Path("/etc/tried-by-a-test").exists()
    assert os.uname().nodename == name
    assert links == ["lo"]
    assert left_behind() == set()


def test_a_machine_ends_with_all_that_runs_on_it() -> None:
    """Also with what somebody started there from outside, and forgot."""
    with booted() as machine:
        forgotten = machine.start("cat")
    assert forgotten.stdin is not None
    assert forgotten.stdout is not None
    with forgotten.stdin, forgotten.stdout:
        assert forgotten.returncode is not None
    assert left_behind() == set()


def test_a_machine_is_gone_when_a_test_fails_on_it() -> None:
    with pytest.raises(ZeroDivisionError):
        fail_on_a_machine()
    assert left_behind() == set()


def fail_on_a_machine() -> None:
    """Fail while something runs there."""
    with booted() as machine:
        machine.run("systemd-run", "cat", "/dev/zero")
        raise ZeroDivisionError
