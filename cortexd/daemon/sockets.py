"""Listening sockets: opened from an address, or taken from systemd.

An address is `host:port`, `[v6]:port` or `unix:/path`. Source for taken ones: sd_listen_fds(3).
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping, MutableMapping

from cortexd.config.addresses import AddressFault, TcpAddress, UnixAddress, parse_listen

LISTEN_BACKLOG = 2048
# Whoever can reach a port may connect to it, and a path is no different: keys say who may ask.
SOCKET_MODE = 0o666
ADMIN_SOCKET_MODE = 0o600
_PROBE_SECONDS = 1
_FIRST_FD = 3  # SD_LISTEN_FDS_START

# A client that vanished without a FIN is found by keep-alive probes after about a minute and a
# half; one that stops acknowledging what we send, after TCP_USER_TIMEOUT.
_KEEPALIVE_IDLE_SECONDS = 60
_KEEPALIVE_INTERVAL_SECONDS = 10
_KEEPALIVE_PROBES = 3


class ListenProblem(Exception):
    """An address that cannot be listened on; the message says which and what to change."""


def open_listener(address: str, *, unacknowledged_seconds: float) -> socket.socket:
    """Listen on `address`. Accepted connections inherit keep-alive and the acknowledgement limit.

    Raises ListenProblem.
    """
    try:
        where = parse_listen(address)
        if isinstance(where, UnixAddress):
            return _listen_unix(where.path, SOCKET_MODE)
        listener = _listen_tcp(where)
    except AddressFault as fault:
        raise ListenProblem(f"cannot listen on {address}: {fault.what}; {fault.hint}") from fault
    except OSError as error:
        raise ListenProblem(
            f"cannot listen on {address}: {error.strerror or error}. "
            "Stop what listens there, or choose another address with --listen, --metrics-listen "
            "or in the configuration"
        ) from error
    watch_peers(listener, unacknowledged_seconds=unacknowledged_seconds)
    return listener


@contextlib.contextmanager
def open_admin_socket(path: str) -> Iterator[socket.socket]:
    """Listen on `path` for this user (and root) alone; the socket is removed at the end.

    One that a dead daemon left behind is replaced, a living daemon's never. The folder must exist.
    Raises ListenProblem.
    """
    try:
        parse_listen(f"unix:{path}")
        listener = _listen_unix(path, ADMIN_SOCKET_MODE)
    except AddressFault as fault:
        raise ListenProblem(
            f"cannot open the admin socket {path}: {fault.what}. "
            "Give gateway.admin_socket a short absolute path"
        ) from fault
    except OSError as error:
        raise ListenProblem(
            f"cannot open the admin socket {path}: {error.strerror or error}. "
            f"{_admin_advice(error, path)}, or choose another path with gateway.admin_socket"
        ) from error
    # While this is open, the socket counts as alive: no daemon that comes after us can have put its
    # own there when we remove ours, although whoever serves on the listener closes it.
    kept = listener.dup()
    with listener, kept, removed_at_end(listener):
        yield listener


@contextlib.contextmanager
def removed_at_end(listener: socket.socket) -> Iterator[None]:
    """Remove the file of a unix socket that we opened, when this is left; a port has none.

    Who serves on the listener may have closed it by then. What another put in its place stays.
    """
    if listener.family != socket.AF_UNIX:
        yield
        return
    path = listener.getsockname()
    # Open, so that no other file gets its number meanwhile.
    ours = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # gone already, or not ours to remove any more
            if os.path.samestat(os.lstat(path), os.fstat(ours)):
                os.unlink(path)
        os.close(ours)


def _admin_advice(error: OSError, path: str) -> str:
    folder = os.path.dirname(path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"Create the folder {folder}, owned by the daemon's user and with mode 0700"
    if error.errno == errno.EADDRINUSE:
        return "Stop the cortexd that listens there (a file that is no socket is never removed)"
    return f"Let the daemon's user write into {folder}, and let no other user's socket be there"


def watch_peers(listener: socket.socket, *, unacknowledged_seconds: float) -> None:
    """Have the kernel end connections whose peer is gone (TCP only)."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS),
        (socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_SECONDS),
        (socket.TCP_KEEPCNT, _KEEPALIVE_PROBES),
        (socket.TCP_USER_TIMEOUT, int(unacknowledged_seconds * 1000)),
    ):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


def taken_from_systemd(environment: MutableMapping[str, str]) -> Mapping[str, socket.socket]:
    """Sockets that systemd passed, by role: `gateway` and `metrics`.

    A socket unit's `FileDescriptorName=` decides the role; unnamed ones are the gateway, then the
    metrics listener. The variables are removed, so that no child takes them for its own.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    taken: dict[str, socket.socket] = {}
    for index in range(int(count)):
        name = names[index] if index < len(names) else ""
        role = next((role for role in ("gateway", "metrics") if role in name), None)
        if role is None:
            role = "gateway" if "gateway" not in taken else "metrics"
        if role in taken:
            raise ListenProblem(
                f"systemd passed two sockets for {role}; keep one ListenStream each"
            )
        descriptor = _FIRST_FD + index
        os.set_inheritable(descriptor, False)
        taken[role] = socket.socket(fileno=descriptor)
    return taken


def describe(listener: socket.socket, *, tls: bool) -> str:
    """The address as users type it: `http://127.0.0.1:31313`, or `unix:/path`."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[0], name[1]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _listen_tcp(where: TcpAddress) -> socket.socket:
    found = socket.getaddrinfo(
        where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(LISTEN_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_unix(path: str, mode: int) -> socket.socket:
    """Listen on a path, in place of a socket that an earlier run left behind and nobody answers.

    The file never has a right that is not in `mode`, and all of them once somebody can connect.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_behind(path):
            os.unlink(path)
        # Linux makes the file with the mode of the descriptor, less the umask. To change the umask
        # would do, but it is the whole process's, and other threads make files too.
        os.fchmod(listener.fileno(), mode)
        listener.bind(path)
        os.chmod(path, mode)  # nobody can connect before `listen`
        listener.listen(LISTEN_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_left_behind(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_SECONDS)  # without one, a full backlog would hang us
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                return True
            except BlockingIOError:  # the backlog is full: stuck perhaps, but alive
                return False
    return False
