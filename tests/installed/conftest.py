"""The packages that are installed, and the machines they are installed on."""

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import build_deb
import build_zipapp
import pytest

from cortexd import __version__
from tests.installed.machine import Machine, booted, why_not
from tests.installed.site import Site

NEXT_VERSION = "99.0"


class Packages(NamedTuple):
    """A package of this checkout, and one of a version that comes after it."""

    this: Path
    next: Path


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Both packages; of the next version only its number is different."""
    other_python = "the file is built by Python 3.11" if sys.version_info[:2] != (3, 11) else None
    if reason := other_python or why_not():
        pytest.skip(f"cortexd is not tried as installed: {reason}")
    folder = tmp_path_factory.mktemp("packages")
    pyz, next_pyz = folder / "cortexd.pyz", folder / "next.pyz"
    build_zipapp.build(pyz, wheels=build_zipapp.WHEELS, interpreter=build_zipapp.INTERPRETER)
    next_pyz.write_bytes(f"#!{build_zipapp.INTERPRETER}\n".encode())
    with zipfile.ZipFile(pyz) as old, zipfile.ZipFile(next_pyz, "a") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "cortexd/__init__.py":
                content = f'__version__ = "{NEXT_VERSION}"\n'.encode()
            if entry.filename != "cortexd/__init__.pyc":
                new.writestr(entry.filename, content)
    return Packages(
        build_deb.build(pyz, folder, build_deb.debian_version(__version__)),
        build_deb.build(next_pyz, folder, NEXT_VERSION),
    )


@pytest.fixture(scope="module")
def machine(packages: Packages) -> Iterator[Machine]:
    """A machine without cortexd, for all tests of a file."""
    with booted(packages.this.parent) as machine:
        yield machine


@pytest.fixture(scope="module")
def site(machine: Machine, packages: Packages) -> Site:
    """That machine with a neuron and cortexd in front of it, enabled and running."""
    site = Site(machine)
    site.start_neuron()
    machine.run("dpkg", "--install", str(packages.this))
    site.configure()
    machine.run("systemctl", "enable", "--now", "cortexd")
    return site
