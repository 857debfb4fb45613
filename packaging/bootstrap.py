"""The first code that runs in cortexd.pyz: makes the C extensions importable, then hands over.

Python can import pure modules straight from a zip, but the dynamic loader wants a file for a C
extension. Each extension is therefore copied from the zip into an anonymous file in memory
(``memfd_create``), which needs no writable directory: a read-only root, ``ProtectSystem=strict``,
no home and ``MemoryDenyWriteExecute=yes`` are all fine. Where the kernel forbids that
(``vm.memfd_noexec=2``) or /proc is missing, ``CORTEXD_NATIVE_DIR`` names a directory to use;
it must be writable by the user that runs cortexd, and by nobody else.

The file holds the extensions for several Pythons side by side: their file names differ in the ABI
tag. This module becomes ``__main__.py`` of the zip, so it uses nothing but the standard library,
and no syntax that would keep an old Python from telling its owner that it is too old.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING
from zipimport import zipimporter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

#: Every C extension that cortexd needs. The build fails when a wheel brings another set.
NATIVE = ("httptools.parser.parser", "httptools.parser.url_parser", "msgspec._core")

DIRECTORY_VARIABLE = "CORTEXD_NATIVE_DIR"
OLDEST_PYTHON = (3, 11)
#: Exit code of wrong usage; systemd does not restart after it (RestartPreventExitStatus=).
WRONG_USAGE = 2


class NativeModules(MetaPathFinder):
    """Finds the modules in ``code``, each once, and gives the loader a real path to what is there.

    ``suffix`` is what the running Python's extension files end in, for example
    ``.cpython-311-x86_64-linux-gnu.so``. ``directory`` replaces the anonymous files when it is set.
    """

    def __init__(self, code: dict[str, bytes], *, suffix: str, directory: str | None) -> None:
        self._code = code
        self._suffix = suffix
        self._directory = directory

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The import system's question (see `importlib.abc.MetaPathFinder.find_spec`)."""
        code = self._code.get(fullname)
        if code is None:
            return None
        file = file_in(self._directory, fullname + self._suffix, code) if self._directory else None
        spec = spec_of(fullname, file or file_in_memory(fullname, code))
        del self._code[fullname]
        return spec


def native_code(archive: str, suffix: str) -> dict[str, bytes]:
    """Module -> its C extension in the zip, of all in `NATIVE` that are there for this ABI.

    By the reader that Python has opened the zip with: ``zipfile`` would read its directory once
    more, which is a megabyte for as long as the process lives.
    """
    reader = zipimporter(archive)
    code = {}
    for module in NATIVE:
        try:
            code[module] = reader.get_data(entry_of(module, suffix))
        except OSError:
            continue  # `problem_with` says so
    return code


def entries_in(archive: str) -> set[str]:
    """The names of everything in the zip."""
    from zipfile import ZipFile  # only when something is missing

    with ZipFile(archive) as opened:
        return set(opened.namelist())


def entry_of(module: str, suffix: str) -> str:
    """The name inside the zip of one C extension for one ABI."""
    return module.replace(".", "/") + suffix


def spec_of(module: str, file: str) -> ModuleSpec | None:
    """How to import ``module`` from ``file``."""
    return spec_from_file_location(module, file, loader=ExtensionFileLoader(module, file))


def file_in_memory(module: str, code: bytes) -> str:
    """Put ``code`` into an anonymous file; gives its path, or raises `ImportError`.

    The descriptor stays open as long as the process: were it closed, the next extension would get
    the same number, hence the same path, and the loader would take it for the one it already has.
    """
    try:
        descriptor = os.memfd_create(module, os.MFD_CLOEXEC)
    except OSError as error:
        raise ImportError(f"{error}: {advice(module)}") from error
    with open(descriptor, "wb", closefd=False) as file:
        file.write(code)
    path = f"/proc/self/fd/{descriptor}"
    if not os.path.exists(path):
        raise ImportError(f"/proc is not there: {advice(module)}")
    return path


def advice(module: str) -> str:
    """What to do when an extension cannot be loaded from memory."""
    return (
        f"{module} cannot be loaded from memory here; set {DIRECTORY_VARIABLE} to a directory"
        " that only the user who runs cortexd can write"
    )


def file_in(directory: str, name: str, code: bytes) -> str:
    """Put ``code`` into ``directory`` under ``name``, unless it is there already; gives its path.

    Written beside and renamed, because a running cortexd may have the old file mapped.
    """
    path = os.path.join(directory, name)
    if os.path.exists(path):
        with open(path, "rb") as file:
            if file.read() == code:
                return path
    fresh = f"{path}.{os.getpid()}"
    with open(fresh, "wb") as file:
        file.write(code)
    os.replace(fresh, path)
    return path


def problem_with(
    version: tuple[int, ...], suffix: str, entries: frozenset[str] | set[str]
) -> str | None:
    """Why this file cannot run on this Python, in words for its owner; None when it can."""
    if version[:2] < OLDEST_PYTHON:
        found, needed = (".".join(str(part) for part in v) for v in (version[:2], OLDEST_PYTHON))
        return f"cortexd needs Python {needed} or later; this is Python {found}"
    missing = [module for module in NATIVE if entry_of(module, suffix) not in entries]
    if not missing:
        return None
    stem = NATIVE[0].replace(".", "/")
    inside = sorted(entry[len(stem) :] for entry in entries if entry.startswith(stem + "."))
    return (
        f"this cortexd file has no native code ({', '.join(missing)}) for {suffix};"
        f" it runs on: {', '.join(inside)}"
    )


def run() -> int:
    """Run cortexd from the zip that this module was loaded from; gives the exit code."""
    archive = os.path.abspath(sys.path[0])
    suffix = EXTENSION_SUFFIXES[0]
    code = native_code(archive, suffix)
    entries = {entry_of(module, suffix) for module in code}
    if len(code) < len(NATIVE):
        entries = entries_in(archive)  # to say what is inside
    problem = problem_with(sys.version_info[:2], suffix, entries)
    if problem is not None:
        print(f"cortexd: {problem}", file=sys.stderr)
        return WRONG_USAGE
    directory = os.environ.get(DIRECTORY_VARIABLE) or None
    sys.meta_path.insert(0, NativeModules(code, suffix=suffix, directory=directory))
    from cortexd.cli.main import main  # only importable from here on

    return main()


if __name__ == "__main__":
    sys.exit(run())
