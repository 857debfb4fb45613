"""The built file, run as on a stranger's machine: no checkout, no environment, nothing writable."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import bootstrap
import build_zipapp
import pytest

from cortexd import __version__

ROOT = Path(__file__).resolve().parent.parent.parent
DEBIANS_PYTHON = Path("/usr/bin/python3")
BYTES_MAX = 8_000_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the file is built by Python 3.11"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file, alone in a directory that nobody may write to."""
    folder = tmp_path_factory.mktemp("built")
    file = folder / "cortexd"
    build_zipapp.build(file, wheels=build_zipapp.WHEELS, interpreter=build_zipapp.INTERPRETER)
    folder.chmod(0o555)
    yield file
    folder.chmod(0o755)
    assert [path.name for path in folder.iterdir()] == ["cortexd"]


def pythons() -> list[str]:
    """Every Python from 3.11 on that answers, Debian's own first."""
    names = [str(DEBIANS_PYTHON), *(f"python3.{minor}" for minor in range(11, 15))]
    found = [path for name in names if (path := shutil.which(name))]
    new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
    return [
        path
        for path in found
        if subprocess.run([path, "-c", new_enough], capture_output=True).returncode == 0
    ]


def run(command: list[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run with nothing but the given environment, in the root directory."""
    # A version switcher's stand-in for python3.12 needs PATH to find the real one.
    environment.setdefault("PATH", os.environ["PATH"])
    return subprocess.run(command, env=environment, cwd="/", text=True, capture_output=True)


@pytest.mark.skipif(not DEBIANS_PYTHON.exists(), reason="no /usr/bin/python3 here")
def test_the_file_runs_by_its_first_line(built: Path) -> None:
    done = run([built, "--version"], PATH="/nonexistent")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cortexd {__version__}\n", "")


@pytest.mark.parametrize("python", pythons())
def test_the_file_runs_on_every_python_that_is_here(built: Path, python: str) -> None:
    done = run([python, "-I", built, "check-config", ROOT / "packaging" / "cortexd.yaml"])
    assert (done.returncode, done.stderr) == (0, "")


def test_the_file_checks_a_configuration_that_is_wrong(built: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("neuron: []\n")
    done = run([sys.executable, "-I", built, "check-config", tmp_path / "bad.yaml"])
    assert done.returncode == 2
    assert "neuron" in done.stdout + done.stderr


def test_every_module_of_cortexd_and_what_it_imports_late_is_inside(built: Path) -> None:
    """What pruning took too much of would only be missed when somebody needs it."""
    with zipfile.ZipFile(built) as opened:
        names = [name for name in opened.namelist() if name.startswith("cortexd/")]
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in names
        if name.endswith(".py") and not name.endswith("__main__.py")
    ]
    late = [
        "rich.console",
        "rich.table",
        "rich.traceback",
        "rich.syntax",
        "rich.markdown",
        "rich.live",
    ]
    code = (
        "import importlib, sys\n"
        "archive, *modules = sys.argv[1:]\n"
        "sys.path = [archive, *(p for p in sys.path if 'site-packages' not in p)]\n"
        "import __main__; from importlib.machinery import EXTENSION_SUFFIXES\n"
        "import runpy; sys.argv = ['cortexd', '--version']\n"
        "try: runpy.run_path(archive, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "for module in modules: importlib.import_module(module)\n"
        "own = [m for m in ('trio', 'rich', 'msgspec._core', 'httptools.parser.parser')]\n"
        "print(*(str(getattr(sys.modules[m], '__file__')).startswith((archive, '/proc/self/fd/'))\n"
        "        for m in own))\n"
    )
    done = run([sys.executable, "-I", "-c", code, built, *modules, *late])
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "True True True True"


def test_c_code_can_be_put_into_a_directory_instead(built: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-I", built, "check-config"]
    command.append(ROOT / "packaging" / "cortexd.yaml")
    done = run(command, CORTEXD_NATIVE_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert any(path.name.startswith("msgspec._core.") for path in tmp_path.iterdir())


def test_the_file_holds_what_it_promises_and_stays_small(built: Path) -> None:
    with zipfile.ZipFile(built) as opened:
        names = set(opened.namelist())
    for python in build_zipapp.PYTHONS:
        suffix = f".cpython-{python}-x86_64-linux-gnu.so"
        assert bootstrap.problem_with((3, 11), suffix, names) is None
    manual = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cortexd").rglob("*.md")}
    assert manual <= names
    assert {"LICENSE", "cortexd/__init__.py", "cortexd/__init__.pyc"} <= names
    assert built.stat().st_size < BYTES_MAX
