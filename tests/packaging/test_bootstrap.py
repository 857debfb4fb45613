"""The first code of the built file: which Pythons it accepts, how it loads C code from a zip."""

import importlib.machinery
import importlib.util
import os
import zipfile
from pathlib import Path

import bootstrap
import msgspec
import pytest

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
COMPLETE = {
    bootstrap.entry_of(module, ".cpython-311-x86_64-linux-gnu.so") for module in bootstrap.NATIVE
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip that holds this Python's msgspec._core, and nothing else."""
    path = tmp_path / "some.pyz"
    code = Path(msgspec.__file__).with_name(f"_core{SUFFIX}").read_bytes()
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(f"msgspec/_core{SUFFIX}", code)
    return path


def loaded(archive: Path, directory: str | None) -> object:
    """msgspec._core as the finder gives it, beside the one that is already imported."""
    code = bootstrap.native_code(str(archive), SUFFIX)
    finder = bootstrap.NativeModules(code, suffix=SUFFIX, directory=directory)
    spec = finder.find_spec("msgspec._core")
    assert spec is not None
    return importlib.util.module_from_spec(spec).__file__


def test_a_python_whose_code_is_inside_has_no_problem() -> None:
    assert bootstrap.problem_with((3, 11), ".cpython-311-x86_64-linux-gnu.so", COMPLETE) is None


def test_an_unknown_abi_is_named_with_those_that_are_inside() -> None:
    problem = bootstrap.problem_with((3, 13), ".cpython-313t-x86_64-linux-gnu.so", COMPLETE)
    assert problem == (
        "this cortexd file has no native code (httptools.parser.parser,"
        " httptools.parser.url_parser, msgspec._core) for .cpython-313t-x86_64-linux-gnu.so;"
        " it runs on: .cpython-311-x86_64-linux-gnu.so"
    )


def test_an_abi_that_is_only_half_inside_is_refused() -> None:
    half = COMPLETE - {"msgspec/_core.cpython-311-x86_64-linux-gnu.so"}
    problem = bootstrap.problem_with((3, 11), ".cpython-311-x86_64-linux-gnu.so", half)
    assert problem is not None
    assert "(msgspec._core)" in problem


@pytest.mark.parametrize("version", [(3, 10), (3, 9, 2), (2, 7)])
def test_a_python_that_is_too_old_is_told_so(version: tuple[int, ...]) -> None:
    found = f"{version[0]}.{version[1]}"
    problem = bootstrap.problem_with(version, ".so", COMPLETE)
    assert problem == f"cortexd needs Python 3.11 or later; this is Python {found}"


def test_other_modules_are_none_of_the_finders_business() -> None:
    finder = bootstrap.NativeModules({"msgspec._core": b""}, suffix=SUFFIX, directory=None)
    assert finder.find_spec("json") is None


def test_c_code_that_was_loaded_is_not_kept_in_memory(archive: Path) -> None:
    code = bootstrap.native_code(str(archive), SUFFIX)
    assert set(code) == {"msgspec._core"}
    finder = bootstrap.NativeModules(code, suffix=SUFFIX, directory=None)
    assert finder.find_spec("msgspec._core") is not None
    assert code == {}


def test_c_code_of_another_abi_is_not_taken(archive: Path) -> None:
    assert bootstrap.native_code(str(archive), ".cpython-399-x86_64-linux-gnu.so") == {}
    assert bootstrap.entries_in(str(archive)) == {f"msgspec/_core{SUFFIX}"}


def test_c_code_is_loaded_from_memory(archive: Path) -> None:
    assert str(loaded(archive, None)).startswith("/proc/self/fd/")


def test_each_extension_gets_a_path_of_its_own() -> None:
    """The dynamic loader takes a path it has seen for the library it already has."""
    first, second = (bootstrap.file_in_memory(name, b"code") for name in ("a", "b"))
    assert first != second
    assert Path(first).read_bytes() == b"code"
    for path in (first, second):
        os.close(int(path.rpartition("/")[2]))


def test_c_code_is_loaded_from_a_directory_where_memory_is_forbidden(
    archive: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "native"
    directory.mkdir()
    file = directory / f"msgspec._core{SUFFIX}"
    assert loaded(archive, str(directory)) == str(file)
    assert [path.name for path in directory.iterdir()] == [file.name]


def test_a_file_that_is_already_right_is_left_alone(tmp_path: Path) -> None:
    """So that the directory may be read-only once it is filled."""
    path = Path(bootstrap.file_in(str(tmp_path), "a.so", b"code"))
    written = path.stat()
    assert bootstrap.file_in(str(tmp_path), "a.so", b"code") == str(path)
    assert path.stat().st_ino == written.st_ino


def test_another_versions_file_is_replaced_and_not_overwritten(tmp_path: Path) -> None:
    path = Path(bootstrap.file_in(str(tmp_path), "a.so", b"old"))
    with path.open("rb") as mapped:
        bootstrap.file_in(str(tmp_path), "a.so", b"new")
        assert mapped.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_kernel_that_forbids_files_in_memory_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(name: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "memfd_create", forbidden)
    with pytest.raises(ImportError, match=r"Permission denied.*set CORTEXD_NATIVE_DIR"):
        bootstrap.file_in_memory("msgspec._core", b"")
