"""The real directory: modes, lock, errors as problems; and the simulated one keeps its contract."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cortexd.ledger.disk import DirectoryDisk, Disk, LedgerProblem, unusable
from tests.ledger.simulated_disk import SimulatedDisk


@pytest.fixture(params=["real", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "simulated":
        yield SimulatedDisk()
        return
    real = DirectoryDisk.open(str(tmp_path / "ledger"))
    yield real
    real.shut()


def visible(disk: Disk) -> list[str]:
    return [name for name in disk.names() if name != "lock"]


def test_what_is_written_is_read_back_under_its_new_name(disk: Disk) -> None:
    file = disk.create("a.tmp")
    assert disk.write(file, b"one ") + disk.write(file, b"two") == 7
    disk.sync(file)
    disk.rename("a.tmp", "a")
    disk.sync_directory()
    disk.close(file)
    assert visible(disk) == ["a"]
    assert disk.read("a") == b"one two"
    disk.remove("a")
    assert visible(disk) == []


def test_a_file_that_nobody_has_open_can_be_synced(disk: Disk) -> None:
    disk.close(disk.create("a"))
    disk.sync_closed("a")
    with pytest.raises(FileNotFoundError):
        disk.sync_closed("b")


def test_a_file_that_exists_is_never_opened_for_writing(disk: Disk) -> None:
    disk.close(disk.create("a"))
    with pytest.raises(FileExistsError):
        disk.create("a")


def test_the_hint_is_overwritten_in_place(disk: Disk) -> None:
    disk.write_hint(b"1" * 64)
    disk.write_hint(b"2" * 64)
    assert disk.read("durable.hint") == b"2" * 64


def test_free_bytes_are_counted(disk: Disk) -> None:
    assert disk.free_bytes() > 0


def test_directory_and_files_belong_to_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "var" / "lib" / "ledger"
    disk = DirectoryDisk.open(str(path))
    disk.close(disk.create("segment"))
    disk.write_hint(b"x")
    disk.shut()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("lock", "segment", "durable.hint"):
        assert stat.S_IMODE((path / name).stat().st_mode) == 0o600


def test_a_second_opener_is_refused_by_name_of_directory_and_process(tmp_path: Path) -> None:
    path = str(tmp_path)
    first = DirectoryDisk.open(path)
    with pytest.raises(LedgerProblem) as caught:
        DirectoryDisk.open(path)
    assert caught.value.kind == "locked"
    assert caught.value.where == path
    assert f"(process {os.getpid()})" in caught.value.what
    first.shut()
    DirectoryDisk.open(path).shut()


def test_a_lock_file_without_a_number_still_locks(tmp_path: Path) -> None:
    first = DirectoryDisk.open(str(tmp_path))
    (tmp_path / "lock").write_bytes(b"")
    with pytest.raises(LedgerProblem, match="another cortexd has this ledger open"):
        DirectoryDisk.open(str(tmp_path))
    first.shut()


def test_another_process_is_refused_too(tmp_path: Path) -> None:
    first = DirectoryDisk.open(str(tmp_path))
    script = (
        "import sys\n"
        "from cortexd.ledger.disk import DirectoryDisk, LedgerProblem\n"
        "try: DirectoryDisk.open(sys.argv[1])\n"
        "except LedgerProblem as problem: print(problem.kind)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "locked\n"
    first.shut()


def test_a_path_through_a_file_is_a_problem_that_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = str(tmp_path / "file" / "ledger")
    with pytest.raises(LedgerProblem) as caught:
        DirectoryDisk.open(path)
    assert caught.value.kind == "unusable"
    assert path in str(caught.value)
    assert "ledger.directory" in caught.value.hint


def test_a_file_in_place_of_the_directory_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("in the way")
    with pytest.raises(LedgerProblem, match="cannot use it"):
        DirectoryDisk.open(str(tmp_path / "ledger"))


def test_a_lock_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(LedgerProblem) as caught:
        DirectoryDisk.open(str(tmp_path))
    assert caught.value.kind == "unusable"


def test_a_file_system_without_locks_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(LedgerProblem, match="No locks available"):
        DirectoryDisk.open(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, -1)
    with pytest.raises(LedgerProblem, match="belongs to user 65534"):
        DirectoryDisk.open(str(tmp_path))


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.EACCES, "Give this user the directory"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "Make room"),
        (errno.EIO, "kernel log"),
        (errno.ENOTDIR, "can create and write"),
    ],
)
def test_each_error_of_the_system_comes_with_what_to_do(code: int, hint: str) -> None:
    problem = unusable("/somewhere", OSError(code, os.strerror(code)))
    assert problem.kind == "unusable"
    assert os.strerror(code) in problem.what
    assert hint in problem.hint


@pytest.mark.parametrize(
    "operation",
    [
        lambda disk: disk.create("b"),
        lambda disk: disk.write(3, b"x"),
        lambda disk: disk.sync(3),
        lambda disk: disk.rename("a", "b"),
        lambda disk: disk.remove("a"),
        lambda disk: disk.sync_directory(),
        lambda disk: disk.write_hint(b"x"),
    ],
)
def test_a_told_fault_strikes_any_operation_of_the_simulated_disk(
    operation: Callable[[SimulatedDisk], object],
) -> None:
    disk = SimulatedDisk()
    assert disk.create("a") == 3
    disk.faults = {disk.operations + 1: "EIO"}
    with pytest.raises(OSError, match="simulated"):
        operation(disk)


def test_simulated_power_loss_takes_only_what_was_not_synced() -> None:
    disk = SimulatedDisk()
    kept = disk.create("kept")
    disk.write(kept, b"durable ")
    disk.sync(kept)
    disk.sync_directory()
    disk.write(kept, b"unsynced")
    disk.create("lost")
    nothing = disk.after_power_loss("nothing", seed=1)
    assert nothing.names() == ["kept"]
    assert nothing.read("kept") == b"durable "
    everything = disk.after_power_loss("everything", seed=1)
    assert everything.names() == ["kept", "lost"]
    assert everything.read("kept") == b"durable unsynced"
    assert all(
        disk.after_power_loss("prefix", seed).read("kept") in b"durable unsynced"
        for seed in range(20)
    )
    assert disk.after_kill(seed=1).read("kept") == b"durable unsynced"


def test_a_failed_simulated_sync_shows_readers_what_the_disk_does_not_have() -> None:
    disk = SimulatedDisk(seed=3)
    file = disk.create("a")
    disk.sync_directory()
    disk.write(file, bytes(range(1, 251)) * 40)
    disk.faults = {disk.operations + 1: "EIO"}
    with pytest.raises(OSError, match="simulated"):
        disk.sync(file)
    disk.sync(file)  # "succeeds", and that is the trap
    assert len(disk.read("a")) == 10_000
    assert disk.after_power_loss("everything", seed=1).read("a") != disk.read("a")
