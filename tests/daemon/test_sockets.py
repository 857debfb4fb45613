"""Listening sockets, opened and taken."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortexd.daemon.sockets import (
    ListenProblem,
    describe,
    open_admin_socket,
    open_listener,
    removed_at_end,
    taken_from_systemd,
)


def listen(address: str) -> socket.socket:
    """Listen with a patience that no test waits for."""
    return open_listener(address, unacknowledged_seconds=30)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_port_zero_picks_a_free_port_and_says_which(host: str) -> None:
    with listen(f"{host}:0") as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert describe(listener, tls=False).endswith(f":{port}")
        family = socket.AF_INET6 if listener.family == socket.AF_INET6 else socket.AF_INET
        with socket.socket(family) as peer:
            peer.connect(listener.getsockname())


def test_an_address_is_described_as_users_type_it() -> None:
    with listen("[::1]:0") as listener:
        port = listener.getsockname()[1]
        assert describe(listener, tls=True) == f"https://[::1]:{port}"


def test_dead_peers_are_found_by_the_kernel() -> None:
    with listen("127.0.0.1:0") as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_a_taken_address_is_a_problem_that_names_it_and_a_way_out() -> None:
    with listen("127.0.0.1:0") as first:
        address = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(ListenProblem, match=f"{address}.*--listen"):
            listen(address)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "unix:relative", "a b:1"])
def test_what_is_no_address_is_a_problem(address: str) -> None:
    with pytest.raises(ListenProblem, match="cannot listen on"):
        listen(address)


def test_a_socket_that_an_earlier_run_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cortexd.sock"
    listen(f"unix:{path}").close()
    with listen(f"unix:{path}") as listener:
        assert describe(listener, tls=False) == f"unix:{path}"


def test_a_socket_that_somebody_answers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cortexd.sock"
    with listen(f"unix:{path}") as first:
        with pytest.raises(ListenProblem, match=str(path)):
            listen(f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(first.getsockname())


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenProblem):
        listen(f"unix:{path}")
    assert path.read_text() == "data"


def test_without_systemd_nothing_is_taken_and_its_variables_go() -> None:
    environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    assert taken_from_systemd(environment) == {}
    assert environment == {}


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask, until left."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def answers(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(path)) == 0


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_the_admin_socket_is_its_users_alone_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "admin.sock"
    with umask(mask), open_admin_socket(str(path)) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert listener.getsockname() == str(path)
        assert answers(path)


def test_the_admin_socket_is_private_before_anything_changes_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is open to all for a moment can be opened in that moment."""
    monkeypatch.setattr(os, "chmod", lambda path, mode: None)
    path = tmp_path / "admin.sock"
    with umask(0), open_admin_socket(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_admin_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with open_admin_socket(str(path)) as listener:
        listener.close()  # as who serves on it does
    assert not path.exists()


def test_an_admin_socket_that_was_removed_by_hand_is_no_fault_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with open_admin_socket(str(path)):
        path.unlink()
    assert not path.exists()


def test_the_end_removes_no_other_admin_socket_than_its_own(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with contextlib.ExitStack() as second:
        with open_admin_socket(str(path)):
            path.unlink()
            second.enter_context(open_admin_socket(str(path)))
        assert answers(path)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_a_socket_for_clients_is_open_to_all_as_a_port_is(tmp_path: Path, mask: int) -> None:
    """Keys say who may ask; the unit's umask would shut everybody out but root."""
    path = tmp_path / "gateway.sock"
    with umask(mask), listen(f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_a_socket_is_removed_at_the_end_and_what_took_its_place_is_not(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with listen(f"unix:{path}") as first, removed_at_end(first):
        pass
    assert not path.exists()
    with listen(f"unix:{path}") as first, removed_at_end(first):
        first.close()
        second = listen(f"unix:{path}")
    with second:
        assert answers(path)


def test_a_port_leaves_nothing_to_remove() -> None:
    with listen("127.0.0.1:0") as listener, removed_at_end(listener):
        pass


def test_an_admin_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    assert not answers(path)
    with open_admin_socket(str(path)):
        assert answers(path)


@pytest.mark.parametrize("closes_first", [False, True])
def test_an_admin_socket_of_a_living_daemon_is_not_replaced(
    tmp_path: Path, closes_first: bool
) -> None:
    path = tmp_path / "admin.sock"
    with open_admin_socket(str(path)) as first:
        if closes_first:
            first.close()
        with (
            pytest.raises(ListenProblem, match="Stop the cortexd that listens there"),
            open_admin_socket(str(path)),
        ):
            pytest.fail("two daemons have one socket")
        assert answers(path)


def test_a_daemon_that_accepts_nothing_any_more_is_still_alive(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with contextlib.ExitStack() as opened:
        stuck = opened.enter_context(socket.socket(socket.AF_UNIX))
        stuck.bind(str(path))
        stuck.listen(0)
        for _ in range(10):
            peer = opened.enter_context(socket.socket(socket.AF_UNIX))
            peer.setblocking(False)
            peer.connect_ex(str(path))
        with (
            pytest.raises(ListenProblem, match="Stop the cortexd that listens there"),
            open_admin_socket(str(path)),
        ):
            pytest.fail("a living daemon lost its socket")


def test_an_admin_path_that_is_a_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with (
        pytest.raises(ListenProblem, match="a file that is no socket is never removed"),
        open_admin_socket(str(path)),
    ):
        pytest.fail("the file was replaced")
    assert path.read_text() == "data"


def test_an_admin_socket_without_its_folder_says_which_to_create(tmp_path: Path) -> None:
    with (
        pytest.raises(ListenProblem, match=f"Create the folder {tmp_path}/none, .*admin_socket"),
        open_admin_socket(str(tmp_path / "none" / "admin.sock")),
    ):
        pytest.fail("listens nowhere")


@pytest.mark.parametrize(("path", "said"), [("/" + "a" * 107, "107 bytes"), ("x", "not absolute")])
def test_a_path_that_cannot_be_an_admin_socket_says_why(path: str, said: str) -> None:
    with (
        pytest.raises(ListenProblem, match=f"{said}.*gateway.admin_socket"),
        open_admin_socket(path),
    ):
        pytest.fail("listens nowhere")


def test_a_folder_that_may_not_be_written_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(path: str, mode: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "chmod", forbid)
    with (
        pytest.raises(ListenProblem, match=f"Permission denied.*user write into {tmp_path}"),
        open_admin_socket(str(tmp_path / "admin.sock")),
    ):
        pytest.fail("listens nowhere")
