"""The Debian package: what dpkg reads in it, and that nothing in it is left to chance."""

import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import build_deb
import build_zipapp
import command_line
import completions
import pytest

from cortexd.config.load import load

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "packaging" / "debian").glob("p*"))

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program file with two libraries inside, as far as the package looks at it."""
    path = tmp_path_factory.mktemp("program") / "cortexd.pyz"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("brick-1.0.dist-info/METADATA", "Name: brick")
        opened.writestr("brick-1.0.dist-info/licenses/LICENSE", "Bricks are free.\n")
        opened.writestr("mortar-2.dist-info/LICENSE", "    Apache License\n" + "word " * 2200)
    return path


@pytest.fixture(scope="module")
def built(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package around that file."""
    return build_deb.build(pyz, tmp_path_factory.mktemp("package"), "1.2~dev3")


def dpkg_deb(*arguments: str | Path) -> str:
    """What dpkg-deb says; it has to be content."""
    done = subprocess.run(["dpkg-deb", *arguments], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def unpacked(built: Path, folder: Path) -> Path:
    """What the package would put into an empty root directory."""
    dpkg_deb("--extract", built, folder)
    return folder


@needs_dpkg
def test_dpkg_reads_what_the_package_is(built: Path) -> None:
    shown = dpkg_deb("--field", built)
    fields = dict(line.split(": ", 1) for line in shown.splitlines() if line[0] != " ")
    assert built.name == "cortexd_1.2~dev3_amd64.deb"
    assert (fields["Package"], fields["Version"]) == ("cortexd", "1.2~dev3")
    assert fields["Architecture"] == "amd64"
    assert int(fields["Installed-Size"]) > 100
    newest = int(build_zipapp.PYTHONS[-1][1:])
    oldest = int(build_zipapp.PYTHONS[0][1:])
    assert f"python3 (>= 3.{oldest}), python3 (<< 3.{newest + 1}~)" in fields["Depends"]


@needs_dpkg
def test_everything_is_owned_by_root_and_only_the_program_is_executable(built: Path) -> None:
    lines = [line.split() for line in dpkg_deb("--contents", built).splitlines()]
    assert {line[1] for line in lines} == {"root/root"}
    executable = [line[5] for line in lines if line[0].startswith("-") and "x" in line[0]]
    assert executable == ["./usr/bin/cortexd"]


@needs_dpkg
def test_the_configuration_is_the_administrators_and_every_other_file_has_a_checksum(
    built: Path, tmp_path: Path
) -> None:
    dpkg_deb("--control", built, tmp_path / "control")
    root = unpacked(built, tmp_path / "root")
    kept = (tmp_path / "control" / "conffiles").read_text().split()
    assert kept == ["/etc/cortexd/cortexd.yaml"]
    command = ["md5sum", "--check", "--strict", str(tmp_path / "control" / "md5sums")]
    checked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    files = [path for path in root.rglob("*") if path.is_file()]
    assert checked.stdout.count(": OK\n") == len(files) - len(kept)


@needs_dpkg
def test_what_is_installed_is_what_the_checkout_has(built: Path, pyz: Path, tmp_path: Path) -> None:
    root = unpacked(built, tmp_path)
    documents = root / "usr/share/doc/cortexd"
    for installed, source in (
        (root / "usr/bin/cortexd", pyz),
        (root / "usr/lib/systemd/system/cortexd.service", ROOT / "cortexd.service"),
        (root / "usr/lib/systemd/system/cortexd.socket", ROOT / "packaging/cortexd.socket"),
        (documents / "manual/operations.md", ROOT / "cortexd/manual/operations.md"),
        (documents / "examples/credentials.conf", ROOT / "packaging/credentials.conf"),
    ):
        assert installed.read_bytes() == source.read_bytes()
    manual = sorted(path.name for path in (ROOT / "cortexd/manual").rglob("*.md"))
    assert sorted(path.name for path in (documents / "manual").rglob("*.md")) == manual
    fish = root / "usr/share/fish/vendor_completions.d/cortexd.fish"
    assert fish.read_text() == completions.fish(command_line.cortexd())


def test_two_builds_are_equal(built: Path, pyz: Path, tmp_path: Path) -> None:
    assert build_deb.build(pyz, tmp_path, "1.2~dev3").read_bytes() == built.read_bytes()


def test_a_folder_comes_before_what_is_in_it(built: Path) -> None:
    """dpkg makes no folder that the archive does not name first."""
    members = built.read_bytes()
    data = members[members.index(b"data.tar.xz") + 60 :]
    (data_file := built.with_name("data.tar.xz")).write_bytes(data)
    with tarfile.open(data_file) as opened:
        names = [Path(member.name) for member in opened]
    assert names[0] == Path()
    assert [each for place, each in enumerate(names) if each.parent not in names[: place + 1]] == []


def test_every_library_inside_is_credited_in_its_own_words(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as opened:
        text = build_deb.copyright_of(opened)
    assert "brick-1.0 (LICENSE)\n-------------------\nBricks are free.\n" in text
    assert "mortar-2 (LICENSE)\n------------------\nThe Apache License, Version 2.0." in text
    assert "word word" not in text


@pytest.mark.parametrize(
    ("python", "debian"),
    [("0.1.0", "0.1.0"), ("0.2.0.dev1", "0.2.0~dev1"), ("1.0rc2", "1.0~rc2")],
)
def test_a_development_version_sorts_before_its_release(python: str, debian: str) -> None:
    assert build_deb.debian_version(python) == debian


def test_with_the_configuration_that_is_installed_nobody_can_spend_anything() -> None:
    loaded = load(ROOT / "packaging/debian/cortexd.yaml", {}, {})
    assert (loaded.config.neurons, loaded.config.entitlements.keys) == ((), ())
    assert loaded.config.entitlements.require_auth is True
    assert loaded.config.gateway.listen.startswith("127.0.0.1:")
    assert loaded.config.ledger.directory == "/var/lib/cortexd/ledger"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_maintainer_script_is_one_that_dpkg_can_run(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert "set -e" in lines
    done = subprocess.run(["sh", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_maintainer_scripts_are_in_the_package() -> None:
    assert sorted(build_deb.SCRIPTS) == [path.name for path in SCRIPTS]
