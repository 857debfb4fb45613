"""The build's decisions: what of a wheel goes in, and what stops the build."""

import marshal
import sys
import zipfile
from pathlib import Path

import build_zipapp
import pytest
from build_zipapp import BuildProblem

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    "name",
    [
        "trio/__init__.py",
        "trio/_core/_run.py",
        "certifi/cacert.pem",
        "trio-0.35.0.dist-info/METADATA",
        "trio-0.35.0.dist-info/licenses/LICENSE",
        "pygments/lexers/python.py",
        "rich/_unicode_data/unicode15-0-0.py",
        "markdown_it/port.yaml",
    ],
)
def test_code_data_and_licences_go_in(name: str) -> None:
    assert build_zipapp.is_kept(name)


@pytest.mark.parametrize(
    "name",
    [
        "trio/_core/",
        "trio/_tests/test_util.py",
        "anyio/py.typed",
        "httptools/parser/parser.pyx",
        "msgspec/__init__.pyi",
        "trio-0.35.0.dist-info/RECORD",
        "trio-0.35.0.data/scripts/x.py",
        "pygments/lexers/fortran.py",
        "httpx/_main.py",
    ],
)
def test_what_no_run_needs_stays_out(name: str) -> None:
    assert not build_zipapp.is_kept(name)


def test_the_lock_file_has_hashes_for_everything() -> None:
    lock = build_zipapp.read_lock((ROOT / "packaging/requirements.lock").read_text())
    assert {pin.partition("==")[0] for pin in lock} >= {"trio", "hypercorn", "httpx", "msgspec"}
    assert all(hashes and all(len(digest) == 64 for digest in hashes) for hashes in lock.values())


def test_a_wheel_that_is_missing_for_one_python_is_named() -> None:
    wheels = [Path(f"msgspec-0.22.0-cp{python}-cp{python}-x.whl") for python in (311, 312, 314)]
    problem = build_zipapp.problem_with_wheels(wheels, {"msgspec==0.22.0": frozenset()})
    assert problem == "no wheel of msgspec==0.22.0 for cp313- is in the lock file: make lock"


def test_a_wheel_with_another_hash_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "trio-0.35.0-py3-none-any.whl").write_bytes(b"tampered with")
    assert build_zipapp.locked_wheels(tmp_path, {"trio==0.35.0": frozenset({"0" * 64})}) == []


def test_two_wheels_that_want_one_name_stop_the_build(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as wheel:
            wheel.writestr("shared.py", name)
    with pytest.raises(BuildProblem, match=r"shared\.py differs between wheels.*b\.whl"):
        build_zipapp.entries_of([tmp_path / "a.whl", tmp_path / "b.whl"])


def test_c_code_that_the_bootstrap_does_not_know_stops_the_build(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("a/fast.cpython-311-x86_64-linux-gnu.so", elf(b"", extra=b""))
    with pytest.raises(BuildProblem, match=r"NATIVE: a/fast\.cpython-311"):
        build_zipapp.entries_of([tmp_path / "a.whl"])


def test_debug_data_after_what_is_mapped_is_cut_off() -> None:
    whole = elf(b"code", extra=b"symbols and sections")
    cut = build_zipapp.without_debug_data(whole)
    assert cut.endswith(b"code")
    assert cut[40:48] == bytes(8)
    assert cut[60:64] == bytes(4)


def test_what_is_no_elf_file_is_not_cut() -> None:
    with pytest.raises(BuildProblem, match="no 64-bit ELF"):
        build_zipapp.without_debug_data(b"MZ and so on")


def test_compiled_code_does_not_depend_on_the_place_it_was_built_in() -> None:
    source = {"a/b.py": b"x = {'p', 'q', 'r'}\nif x in ('p', 'q'): pass\n", "__main__.py": b""}
    first, second = (dict(build_zipapp.compiled(source)) for _ in range(2))
    assert list(first) == ["a/b.pyc"]
    assert first == second
    assert b"cortexd.pyz/a/b.py" in first["a/b.pyc"]


def test_compiled_code_does_not_depend_on_what_else_is_loaded() -> None:
    """Two builds of one commit compare equal, and the second one may have imported more."""
    source = {
        "a.py": b"def f(a_name, b='a text', c='\xc2\xa7'): return 'v' in ('a name', b, 1.5)\n"
    }
    [(_, alone)] = build_zipapp.compiled(source)
    code = marshal.loads(alone[16:])
    held = [build_zipapp.settled(code), sys.intern("\xa7"), sys.intern("a_name")]
    [(_, in_company)] = build_zipapp.compiled(source)
    assert alone == in_company
    assert held


def test_what_is_said_several_times_is_compiled_in_once() -> None:
    """Loaded code shares it then; file names alone would take half a megabyte."""
    source = {"a.py": b"def f(): return 'a text'\ndef g(): return 'a text'\n"}
    [(_, compiled)] = build_zipapp.compiled(source)
    assert compiled.count(b"a text") == compiled.count(b"cortexd.pyz/a.py") == 1


def elf(code: bytes, *, extra: bytes) -> bytes:
    """A shared object with one program header, which maps ``code``, and ``extra`` behind that."""
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    header[32:40] = (64).to_bytes(8, "little")
    header[40:48] = (1000).to_bytes(8, "little")
    header[54:58] = (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    header[60:64] = b"\x05\x00\x04\x00"
    mapping = bytearray(56)
    mapping[8:16] = (120).to_bytes(8, "little")
    mapping[32:40] = len(code).to_bytes(8, "little")
    return bytes(header + mapping) + code + extra
