"""Claims about the files that a configuration names."""

import os
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from cortexd.config.convert import SecretFault
from cortexd.config.files import (
    FileFault,
    directory_fault,
    read_secret,
    read_text,
    readable_fault,
    tls_fault,
    zone_fault,
)

NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Runs the block without root's right to pass over file modes."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("data", [b"a: 1\n", b"\xef\xbb\xbfa: 1\n"])
def test_a_text_is_utf_8_with_or_without_a_byte_order_mark(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x"
    file.write_bytes(data)
    assert read_text(str(file)) == "a: 1\n"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gone", "the file does not exist"),
        ("", "a directory, not a file"),
        ("latin", "the file is not UTF-8: on line 1 is a byte that fits nowhere"),
        ("large", "the file is larger than 10 bytes"),
        ("latin/x", "the file cannot be read: not a directory"),
        ("a\0b", "not a path"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "latin").write_bytes(b"a: caf\xe9"[1:])
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(FileFault) as caught:
        read_text(str(tmp_path / name), bytes_max=10)
    assert caught.value.what == what
    assert caught.value.missing is (name == "gone")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("a: 1")
    file.chmod(0)
    with as_nobody():
        assert readable_fault(str(file)) == (
            "the file may not be read",
            "give cortexd's user the right to read it",
        )


def test_a_secret_loses_its_trailing_newline_only(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b" sk-a \r\n")
    assert read_secret(str(file)) == " sk-a "
    with pytest.raises(SecretFault, match="does not exist"):
        read_secret(str(tmp_path / "gone"))
    file.write_bytes(b"x" * 70_000)
    with pytest.raises(SecretFault, match="larger than"):
        read_secret(str(file))


@pytest.mark.slow
def test_tls_files_must_belong_together(tmp_path: Path) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    files: list[tuple[str, str]] = []
    for name in ("a", "b"):
        issued = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        files.append((str(certificate), str(key)))
    assert tls_fault(*files[0]) is None
    for pair in ((files[0][0], files[1][1]), (files[0][1], files[0][0])):
        fault = tls_fault(*pair)
        assert fault is not None
        assert fault[0] == "the certificate and the private key cannot be used"


def test_a_directory_is_tried_without_leaving_anything(tmp_path: Path) -> None:
    assert directory_fault(str(tmp_path)) is None
    assert directory_fault(str(tmp_path / "a" / "b" / "c")) is None
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loose").symlink_to(tmp_path / "gone")
    told = {}
    for name in ("file", "file/x", "loose", "x" * 300):
        fault = directory_fault(str(tmp_path / name))
        told[name] = fault and fault[0]
    assert told == {
        "file": "it is not a directory",
        "file/x": f"its nearest existing parent, {tmp_path}/file, is not a directory",
        "loose": "it is not a directory",
        "x" * 300: "the path is too long",
    }


def test_a_directory_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with as_nobody():
        fault = directory_fault(str(tmp_path / "ledger"))
        tried_in_proc = directory_fault("/proc/cortexd-ledger")
    assert fault is not None
    assert fault[1] == "give cortexd's user the right to write there"
    assert "cannot be written: " in fault[0]
    assert fault.may_pass
    assert tried_in_proc is not None


def test_only_what_is_wrong_with_the_path_itself_is_wrong_for_ever(tmp_path: Path) -> None:
    """A link to nothing may lead to a disk that is mounted later."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "loose").symlink_to(tmp_path / "gone")
    passing = {}
    for name in ("file", "file/x", "loose", "loose/x", "x" * 300):
        fault = directory_fault(str(tmp_path / name))
        passing[name] = fault and fault.may_pass
    assert passing == {
        "file": False,
        "file/x": False,
        "loose": True,
        "loose/x": True,
        "x" * 300: False,
    }


def read_only_places() -> Iterator[str]:
    """Directories of file systems that are mounted read-only."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, _, options, *_ = line.split()
        if "ro" in options.split(",") and os.path.isdir(place):
            yield place


def test_a_read_only_file_system_is_told_as_one() -> None:
    place = next(read_only_places(), None)
    if place is None:
        pytest.skip("nothing here is mounted read-only")
    fault = directory_fault(f"{place}/ledger")
    assert fault is not None
    assert fault.what.endswith("cannot be written: read-only file system")
    assert "ReadWritePaths=" in fault.hint
    assert fault.may_pass


def test_where_unnamed_files_are_unknown_the_mode_of_the_directory_decides() -> None:
    fault = directory_fault("/proc/cortexd-ledger")
    assert (fault is None) == os.access("/proc", os.W_OK | os.X_OK)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"])
def test_a_time_zone_of_the_host_is_no_fault(name: str) -> None:
    assert zone_fault(name) is None


@pytest.mark.parametrize("name", ["Europe/Berlim", "Europe", "../../etc/passwd", "tzdata.zi"])
def test_a_time_zone_that_does_not_exist_is_told_with_a_hint(name: str) -> None:
    fault = zone_fault(name)
    assert fault is not None
    assert fault[0] == "no such time zone"
    assert "Europe/Berlin" in fault[1]


def test_without_a_time_zone_database_only_utc_is_known_and_the_hint_says_what_to_install(
    tmp_path: Path,
) -> None:
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([str(tmp_path)])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert zone_fault("UTC") is None
        what, hint = zone_fault("Europe/Berlin") or ("", "")
    finally:
        zoneinfo.reset_tzpath(before)
    assert what == "this host has no time zone database"
    assert "tzdata" in hint
