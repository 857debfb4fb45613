"""How the engine is fetched, as far as that can be tried without fetching it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("llama_server.sh")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt on this machine"),
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the engine is to be put."""
    return tmp_path / "cache" / "engine"


def fetch(directory: Path, *, archive: str) -> subprocess.CompletedProcess[str]:
    """Run the script; apt tries again as often as ever, but at once."""
    settings = directory.parent.parent / "apt.conf"
    settings.write_text('Acquire::Retries::Delay "false";\n')
    return subprocess.run(
        [SCRIPT, directory],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "CORTEXD_DEBIAN_ARCHIVE": archive, "APT_CONFIG": str(settings)},
    )


def test_an_archive_that_cannot_be_reached_has_an_exit_code_of_its_own(directory: Path) -> None:
    done = fetch(directory, archive="http://127.0.0.1:1/debian")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.splitlines()[-1].endswith("cannot be reached: http://127.0.0.1:1/debian")
    assert [path.name for path in directory.parent.iterdir()] == ["engine.lock"]


def test_an_archive_that_nobody_signed_is_a_failure_and_no_reason_to_skip(directory: Path) -> None:
    archive = directory.parent.parent / "archive" / "debian"
    (archive / "dists/testing").mkdir(parents=True)
    (archive / "dists/testing/Release").write_text("Suite: testing\nComponents: main\n")
    done = fetch(directory, archive=f"file:{archive}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not signed" in done.stderr
    assert [path.name for path in directory.parent.iterdir()] == ["engine.lock"]


def test_what_is_there_already_is_not_fetched_again(directory: Path) -> None:
    start = directory / "llama-server"
    directory.mkdir(parents=True)
    start.touch(mode=0o755)
    done = fetch(directory, archive="http://127.0.0.1:1/debian")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{start}\n", "")
