"""Tries what the service's sandbox allows and forbids, and prints it as JSON.

Runs in place of the daemon, under the same directives. Nothing but the standard library.
"""

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable


def main() -> None:
    """Try everything."""
    tried = {
        "broadcast": broadcast,
        "connect over IPv6": lambda: connect(socket.AF_INET6, "::1"),
        "connect over IPv4": lambda: connect(socket.AF_INET, "127.0.0.1"),
        "write state": lambda: write(os.environ["STATE_DIRECTORY"]),
        "write the admin socket's folder": lambda: write(os.environ["RUNTIME_DIRECTORY"]),
        "write /etc/cortexd": lambda: write("/etc/cortexd"),
        "write /usr": lambda: write("/usr/lib"),
        "read a secret of root's": lambda: read("/etc/cortexd/roots.key"),
        "read a home": lambda: os.listdir("/root"),
        "see other processes": lambda: read("/proc/1/cmdline"),
        "make a raw packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "become root": lambda: os.setuid(0),
        "mount": lambda: os.mknod("/tmp/disk", 0o060600, 0x0700),
    }
    sys.stdout.write(json.dumps({what: possible(attempt) for what, attempt in tried.items()}))


def possible(attempt: Callable[[], object]) -> bool:
    """Whether it goes through."""
    with contextlib.suppress(OSError):
        attempt()
        return True
    return False


def broadcast() -> None:
    """As a Wake-on-LAN packet goes: over UDP, to everybody on a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as everybody:
        everybody.bind(("", 0))
        everybody.settimeout(5)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.sendto(b"wake", ("127.255.255.255", everybody.getsockname()[1]))
        everybody.recv(16)


def connect(family: socket.AddressFamily, host: str) -> None:
    """A TCP connection to a listener of our own."""
    with socket.create_server((host, 0), family=family) as listener:
        socket.create_connection(listener.getsockname()[:2], timeout=5).close()


def write(folder: str) -> None:
    """A file in a folder, for a moment."""
    path = os.path.join(folder, "tried")
    with open(path, "w") as file:
        file.write("tried")
    os.unlink(path)


def read(path: str) -> None:
    """The first byte of a file."""
    with open(path, "rb") as file:
        file.read(1)


if __name__ == "__main__":
    main()
