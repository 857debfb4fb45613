"""What systemd is told."""

import os
import socket
from pathlib import Path

import pytest
import trio

from cortexd.daemon.systemd import Notifier


def notification_socket(path: str) -> socket.socket:
    """A notification socket as systemd binds one."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(path)
    listener.settimeout(5)
    return listener


def test_states_are_sent_as_one_message(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with notification_socket(path) as listener:
        Notifier({"NOTIFY_SOCKET": path}).tell("READY=1", "STATUS=up")
        assert listener.recv(100) == b"READY=1\nSTATUS=up"


def test_an_abstract_address_is_understood() -> None:
    name = f"cortexd-test-{os.getpid()}"
    with notification_socket("\0" + name) as listener:
        Notifier({"NOTIFY_SOCKET": "@" + name}).tell("STOPPING=1")
        assert listener.recv(100) == b"STOPPING=1"


def test_a_systemd_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")
    Notifier({}).tell("READY=1")


async def test_the_watchdog_is_told_from_the_event_loop(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with notification_socket(path) as listener:
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"})
        listener.setblocking(False)
        with trio.move_on_after(10) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(notifier.keep_alive, name="watchdog")
                for _ in range(3):
                    await trio.lowlevel.wait_readable(listener)
                    assert listener.recv(100) == b"WATCHDOG=1"
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught


async def test_no_watchdog_is_told_where_none_waits(tmp_path: Path) -> None:
    """The variables of a parent process are not meant for its child."""
    path = str(tmp_path / "notify")
    with notification_socket(path) as listener:
        listener.setblocking(False)
        for environment in (
            {"WATCHDOG_USEC": "20000"},
            {"NOTIFY_SOCKET": path},
            {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"},
            {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "soon"},
        ):
            with trio.fail_after(5):
                await Notifier(environment).keep_alive()
        with pytest.raises(BlockingIOError):
            listener.recv(100)
