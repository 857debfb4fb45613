"""Listening sockets, opened and taken."""

import os
import socket
from pathlib import Path

import pytest

from cortexd.daemon.sockets import (
    ListenProblem,
    describe,
    open_listener,
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
