"""Builds ``dist/cortexd.pyz``: the whole of cortexd and its libraries as one file that just runs.

Pure modules stay in the zip, sources for every Python and compiled code for the one that Debian 12
has (3.11: a cold start takes 0.5 s instead of 1.2 s). C extensions for CPython 3.11 to 3.14 on
x86_64 lie side by side; bootstrap.py loads the fitting ones. What goes in comes from wheels whose
hashes stand in requirements.lock, and everything that could differ between two builds is fixed
(order, dates, modes, references in compiled code), so that two builds of one commit compare equal.

Refuses to know what cortexd does. Needs the standard library and pip, and Python 3.11 to build.
"""

import argparse
import hashlib
import io
import marshal
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from types import CodeType

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bootstrap import NATIVE, entry_of

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "packaging" / "requirements.lock"
WHEELS = ROOT / "build" / "wheels"
PYTHONS = ("311", "312", "313", "314")
BASELINES = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

#: The shebang names the distribution's Python, not ``env python3``: the package depends on that
#: one, and what an administrator puts first in PATH must not change which Python runs the daemon.
#: ``-I`` keeps PYTHONPATH, PYTHONHOME and the user's site-packages out.
INTERPRETER = "/usr/bin/python3 -I"

#: Under which name tracebacks show a module; the real one would differ from machine to machine.
SHOWN_AS = "cortexd.pyz"

#: What no run needs: tests, type stubs, C sources, and installers' records.
DROPPED_SUFFIXES = (".pyi", ".pyx", ".pxd", ".c", ".h", ".so", "/py.typed")
DROPPED_FOLDERS = ("__pycache__", "tests", "_tests", "_yaml", "_main")
KEPT_OF_DIST_INFO = ("METADATA", "LICENSE", "LICENCE", "COPYING", "AUTHORS", "NOTICE", "licenses")
#: Of Pygments' 250 lexers (9 MB), those of the languages that cortexd's own texts are written in.
KEPT_LEXERS = ("__init__", "_mapping", "python", "shell", "data", "special")
#: What rich imports only to colour code and markdown: too rare to carry it compiled as well.
NOT_COMPILED = ("pygments", "markdown_it", "mdurl")

#: Project name -> hashes of its wheels, from the lock file.
Lock = Mapping[str, frozenset[str]]


class BuildProblem(Exception):
    """Why there is no file, in words that say what to do."""


def read_lock(text: str) -> dict[str, frozenset[str]]:
    """Requirement (``name==version``) -> sha256 of its wheels."""
    pins: dict[str, set[str]] = {}
    requirement = ""
    for line in text.splitlines():
        words = line.removesuffix("\\").split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith("--hash=sha256:"):
            pins[requirement].add(words[0].removeprefix("--hash=sha256:"))
        else:
            requirement = words[0]
            pins[requirement] = set()
    return {requirement: frozenset(hashes) for requirement, hashes in pins.items()}


def locked_wheels(folder: Path, lock: Lock) -> list[Path]:
    """The wheels in ``folder`` whose hash is in the lock file, by name; others are left alone."""
    known = frozenset().union(*lock.values())
    return sorted(
        wheel
        for wheel in folder.glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() in known
    )


def fetch(folder: Path, lock: Lock) -> list[Path]:
    """Let pip download what is missing in ``folder``; gives every wheel that goes into the file."""
    folder.mkdir(parents=True, exist_ok=True)
    if problem_with_wheels(locked_wheels(folder, lock), lock) is not None:
        native = {module.partition(".")[0] for module in NATIVE}
        download(folder, lock, PYTHONS[0])
        for python in PYTHONS[1:]:
            names = {
                pin: hashes for pin, hashes in lock.items() if pin.partition("==")[0] in native
            }
            download(folder, names, python)
    wheels = locked_wheels(folder, lock)
    if problem := problem_with_wheels(wheels, lock):
        raise BuildProblem(problem)
    return wheels


def problem_with_wheels(wheels: Iterable[Path], lock: Lock) -> str | None:
    """Which wheel is missing, or None: one per requirement, one per Python where C is inside."""
    names = [wheel.name.lower() for wheel in wheels]
    native = {module.partition(".")[0] for module in NATIVE}
    for pin in lock:
        project, _, version = pin.partition("==")
        stem = f"{project.replace('-', '_')}-{version}-"
        tags = [f"cp{python}-" for python in PYTHONS] if project in native else [""]
        for tag in tags:
            if not any(name.startswith(stem) and tag in name for name in names):
                return f"no wheel of {pin} for {tag or 'any Python'} is in the lock file: make lock"
    return None


def download(folder: Path, lock: Lock, python: str) -> None:
    """One pip run, hashes checked. Raises `subprocess.CalledProcessError` when pip fails."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        for pin, hashes in lock.items():
            wanted.write(" ".join([pin, *(f"--hash=sha256:{digest}" for digest in sorted(hashes))]))
            wanted.write("\n")
        wanted.flush()
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:", "--implementation", "cp"]
        command += ["--python-version", f"{python[0]}.{python[1:]}", "--dest", str(folder)]
        for baseline in BASELINES:
            command += ["--platform", baseline]
        subprocess.run([*command, "-r", wanted.name], check=True)


def entries_of(wheels: Sequence[Path]) -> dict[str, bytes]:
    """Name in the zip -> content, from all wheels: what `is_kept` of each, and the C extensions.

    Raises `BuildProblem` when two wheels want different contents under one name, or when the C
    extensions are not exactly those that bootstrap.py knows.
    """
    entries: dict[str, bytes] = {}
    extensions: set[str] = set()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            for name in opened.namelist():
                if is_extension(name):
                    extensions.add(name)
                elif not is_kept(name):
                    continue
                content = opened.read(name)
                if name in extensions:
                    content = without_debug_data(content)
                if entries.setdefault(name, content) != content:
                    raise BuildProblem(
                        f"{name} differs between wheels; the last one is {wheel.name}"
                    )
    suffixes = (f".cpython-{python}-x86_64-linux-gnu.so" for python in PYTHONS)
    expected = {entry_of(module, suffix) for suffix in suffixes for module in NATIVE}
    if extensions != expected:
        odd = ", ".join(sorted(extensions ^ expected))
        raise BuildProblem(f"C extensions other than those in bootstrap.py's NATIVE: {odd}")
    return entries


def is_extension(name: str) -> bool:
    """Whether the entry is C code that goes in; PyYAML's is optional, 2.6 MB, and stays out."""
    return name.endswith(".so") and not name.startswith("yaml/")


def is_kept(name: str) -> bool:
    """Whether an entry of a wheel that is not a C extension goes in."""
    folders = name.split("/")[:-1]
    if name.endswith("/") or name.endswith(DROPPED_SUFFIXES):
        return False
    if any(folder in DROPPED_FOLDERS for folder in folders) or ".data" in name.partition("/")[0]:
        return False
    if folders and folders[0].endswith(".dist-info"):
        return name.split("/")[1].startswith(KEPT_OF_DIST_INFO)
    if folders[:2] == ["pygments", "lexers"]:
        return name.split("/")[2].removesuffix(".py") in KEPT_LEXERS
    return name != "httpx/_main.py"  # httpx's own command, which wants another library


def without_debug_data(code: bytes) -> bytes:
    """A shared object up to the end of what the loader maps.

    Section headers, symbols and debug data come after that; httptools' wheels carry 1.7 MB of them.
    Offsets are those of the ELF-64 header (elf(5)): e_phoff 32, e_shoff 40, e_phentsize 54, e_phnum
    56, e_shnum 60, e_shstrndx 62, and of a program header: p_offset 8, p_filesz 32.
    """
    if code[:5] != b"\x7fELF\x02":
        raise BuildProblem("a C extension that is no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", code, 32)
    size, count = struct.unpack_from("<HH", code, 54)
    end = table + size * count
    for header in range(table, end, size):
        offset, stored = (struct.unpack_from("<Q", code, header + field)[0] for field in (8, 32))
        end = max(end, offset + stored)
    mapped = bytearray(code[:end])
    struct.pack_into("<Q", mapped, 40, 0)
    struct.pack_into("<HH", mapped, 60, 0, 0)
    return bytes(mapped)


def own_entries(root: Path) -> dict[str, bytes]:
    """cortexd itself, its manual included, and the start of the zip."""
    entries = {
        str(path.relative_to(root)): path.read_bytes()
        for path in (root / "cortexd").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    entries["__main__.py"] = (root / "packaging" / "bootstrap.py").read_bytes()
    entries["LICENSE"] = (root / "LICENSE").read_bytes()
    return entries


def compiled(entries: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """A ``.pyc`` beside each module, valid without a look at the source's date.

    Two things in what marshal writes depend on what else is loaded in the building process: which
    strings are interned, and what it marks for references back to it, which it omits where there
    is but one reference in the process. `settled` takes care of both. (Format 2 has neither, and
    takes a megabyte more of the daemon's memory, as nothing in it is shared.)
    """
    for name, source in entries.items():
        if name.endswith(".py") and name.split("/")[0] not in (*NOT_COMPILED, "__main__.py"):
            code = compile(source, f"{SHOWN_AS}/{name}", "exec", dont_inherit=True, optimize=0)
            flags = (0b01).to_bytes(4, "little")  # by hash, unchecked (PEP 552)
            parts = settled(code)
            packed = marshal.dumps(code)
            del parts
            yield name + "c", MAGIC_NUMBER + flags + source_hash(source) + packed


def settled(code: CodeType) -> Sequence[object]:
    """Another reference to everything in ``code``; what the process has but one of is interned."""
    parts = list(parts_of(code))
    for part in parts:
        if isinstance(part, str) and len(part) <= 1:
            sys.intern(part)
    return parts


def parts_of(constant: object) -> Iterator[object]:
    """Everything in a constant, which may be code, that others might refer to as well."""
    yield constant
    if isinstance(constant, CodeType):
        yield from (constant.co_filename, constant.co_name, constant.co_qualname)
        for names in (constant.co_names, constant.co_varnames, constant.co_cellvars):
            yield from names
        yield from constant.co_freevars
        for part in constant.co_consts:
            yield from parts_of(part)
    elif isinstance(constant, tuple | frozenset):
        for part in constant:
            yield from parts_of(part)


def write(out: Path, entries: Mapping[str, bytes], interpreter: str) -> None:
    """Write the executable file, replacing an old one by rename: a running one reads on from it."""
    packed = io.BytesIO()
    packed.write(f"#!{interpreter}\n".encode())
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, entries[name])
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_suffix(".new")
    fresh.write_bytes(packed.getvalue())
    fresh.chmod(0o755)
    fresh.replace(out)


def build(out: Path, *, wheels: Path, interpreter: str) -> None:
    """Build ``out`` from this checkout and the wheels, downloading those that are not there yet."""
    if sys.version_info[:2] != (3, 11):
        raise BuildProblem(
            "compiled code for Debian 12 needs Python 3.11 to build: make PYTHON=..."
        )
    entries = entries_of(fetch(wheels, read_lock(LOCK.read_text())))
    entries.update(own_entries(ROOT))
    entries.update(compiled(dict(entries)))
    write(out, entries, interpreter)


def main() -> int:
    """Command line of the build."""
    parser = argparse.ArgumentParser(description="Build cortexd as one executable file.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "cortexd.pyz")
    parser.add_argument("--wheels", type=Path, default=WHEELS, help="where downloads are kept")
    parser.add_argument("--fetch-only", action="store_true", help="download, but build nothing")
    parser.add_argument("--python", default=INTERPRETER, help="for the first line of the file")
    options = parser.parse_args()
    try:
        if options.fetch_only:
            fetch(options.wheels, read_lock(LOCK.read_text()))
            return 0
        build(options.out, wheels=options.wheels, interpreter=options.python)
    except BuildProblem as problem:
        print(f"build_zipapp: {problem}", file=sys.stderr)
        return 1
    digest = hashlib.sha256(options.out.read_bytes()).hexdigest()
    print(f"{options.out} {options.out.stat().st_size} bytes sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
