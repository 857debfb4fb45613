"""The lock files: complete, repeatable, and silent about where packages came from."""

import json
import tomllib
from pathlib import Path

import lock
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NPM = ROOT / "packaging" / "npm"
REPORT = {
    "install": [
        {
            "metadata": {"name": "Hypercorn", "version": "0.18.0"},
            "download_info": {"archive_info": {"hashes": {"sha256": "ab"}}},
        },
        {
            "metadata": {"name": "typing_extensions", "version": "4.16.0"},
            "download_info": {"archive_info": {"hashes": {"sha256": "cd"}}},
        },
    ]
}


def test_pins_are_read_from_pips_report_in_normal_form() -> None:
    assert lock.pins_of(json.dumps(REPORT)) == {
        "hypercorn": ("0.18.0", {"ab"}),
        "typing-extensions": ("4.16.0", {"cd"}),
    }


def test_the_hashes_of_all_pythons_come_together() -> None:
    pins: lock.Pins = {"msgspec": ("0.22.0", {"a"})}
    lock.merge(pins, {"msgspec": ("0.22.0", {"b"}), "trio": ("0.35.0", {"c"})})
    assert pins == {"msgspec": ("0.22.0", {"a", "b"}), "trio": ("0.35.0", {"c"})}


def test_two_versions_of_one_package_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trio: 0\.35\.0 for one Python, 0\.36\.0 for another"):
        lock.merge({"trio": ("0.35.0", {"a"})}, {"trio": ("0.36.0", {"b"})})


def test_a_lock_file_is_sorted_so_that_a_second_run_changes_nothing() -> None:
    pins: lock.Pins = {"b": ("2", {"y", "x"}), "a": ("1", {"z"})}
    assert lock.render(["b>=1"], pins) == (
        "# Written by packaging/lock.py (make lock); do not edit.\n# Wanted:\n#   b>=1\n"
        "a==1 \\\n    --hash=sha256:z\n"
        "b==2 \\\n    --hash=sha256:x \\\n    --hash=sha256:y\n"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "packaging").glob("*.lock")), ids=lambda p: p.name)
def test_every_requirement_of_a_lock_file_is_pinned_and_hashed(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == []


def test_the_lock_files_are_those_of_pyproject() -> None:
    """A dependency that is added without `make lock` is not in the built file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run_time, test = project["dependencies"], project["optional-dependencies"]["test"]
    assert wanted_by("requirements.lock") == run_time
    assert wanted_by("requirements-test.lock") == [*run_time, *test]


def test_the_sdks_are_those_of_sdk_versions() -> None:
    for line in (ROOT / "tests/sdk-versions.txt").read_text().splitlines():
        name, *requirements = line.split()
        assert wanted_by(f"sdk-{name}.lock") == requirements


def test_the_packages_of_npm_are_pinned_hashed_and_without_an_address() -> None:
    """What the lock file does not say, npm would decide anew on each machine."""
    wanted = json.loads((NPM / "package.json").read_text())["dependencies"]
    assert [version for version in wanted.values() if not version[0].isdigit()] == []
    packages = json.loads((NPM / "package-lock.json").read_text())["packages"]
    assert packages.pop("")["dependencies"] == wanted
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version
    loose = [name for name, each in packages.items() if "integrity" not in each]
    addressed = [name for name, each in packages.items() if "resolved" in each]
    assert (loose, addressed) == ([], [])


def test_what_the_benchmark_compares_with_is_locked_too() -> None:
    for line in (ROOT / "tests/bench/peer-versions.txt").read_text().splitlines():
        name, requirement = line.split()
        assert wanted_by(f"peer-{name}.lock") == [requirement]


def wanted_by(name: str) -> list[str]:
    """The requirements that a lock file says it was made for."""
    lines = (ROOT / "packaging" / name).read_text().splitlines()
    return [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
