"""The addresses an operator writes down: where to listen, where a neuron is, what wakes it.

Owns their syntax and nothing else; opens nothing, resolves nothing.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from msgspec import Struct

UNIX_PATH_BYTES_MAX = 107  # sun_path holds 108 with its closing zero: unix(7)

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_LISTEN_HINT = "write host:port, [v6]:port or unix:/path"
_LISTEN_HOST_HINT = f"{_LISTEN_HINT}; 0.0.0.0:port or [::]:port listens everywhere"
_DESTINATION_HINT = "write host:port or [v6]:port"


class AddressFault(ValueError):
    """A text is no address: `what` is wrong with it, and a `hint`."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


class TcpAddress(Struct, frozen=True):
    """A host (a name, IPv4, or IPv6 without brackets) and a port; port 0 picks a free one."""

    host: str
    port: int

    def clashes_with(self, other: "TcpAddress") -> bool:
        """Whether both cannot be listened on at once, as far as can be told without resolving."""
        if self.port == 0 or self.port != other.port:
            return False
        ours, theirs = _canonical(self.host), _canonical(other.host)
        return ours == theirs or "*" in (ours, theirs)


class UnixAddress(Struct, frozen=True):
    """The absolute path of a socket file."""

    path: str


def parse_listen(text: str) -> TcpAddress | UnixAddress:
    """`host:port`, `[v6]:port` or `unix:/path`; raises AddressFault."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise AddressFault("the path of the socket is not absolute", "write unix:/path")
        fault = socket_path_fault(path)
        if fault is not None:
            raise fault
        return UnixAddress(path)
    host, port = _split(text, "not a listen address", _LISTEN_HINT, _LISTEN_HOST_HINT)
    return TcpAddress(host, _port(port, lowest=0))


def parse_destination(text: str) -> TcpAddress:
    """`host:port` or `[v6]:port` that something is sent to; raises AddressFault."""
    what = "not an address with a port"
    host, port = _split(text, what, _DESTINATION_HINT, _DESTINATION_HINT)
    return TcpAddress(host, _port(port, lowest=1))


def socket_path_fault(path: str) -> AddressFault | None:
    """Why no socket can be at this path; None when one can."""
    if len(path.encode("utf-8", "surrogatepass")) <= UNIX_PATH_BYTES_MAX:
        return None
    what = f"the path of the socket is longer than {UNIX_PATH_BYTES_MAX} bytes"
    return AddressFault(what, "the kernel allows no more; choose a shorter one")


def _split(text: str, what: str, hint: str, host_hint: str) -> tuple[str, str]:
    """Host without brackets, and port as it was written; `what` there is without a colon."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise AddressFault(what, hint)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise AddressFault("no IPv6 address between the brackets", hint)
    elif ":" in host:
        raise AddressFault("more than one colon", f"{hint}; IPv6 needs the brackets")
    elif not _is_host(host):
        raise AddressFault("not a host name or address", host_hint)
    return host, port


def parse_endpoint(text: str) -> str:
    """The base URL of a neuron, `http(s)://host[:port]`, without its trailing slash; raises
    AddressFault.
    """
    if not re.fullmatch(r"[!-~]+", text):
        raise AddressFault("a URL cannot hold spaces or non-ASCII characters", _ENDPOINT_HINT)
    scheme, found, rest = text.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        raise AddressFault("the URL does not start with http:// or https://", _ENDPOINT_HINT)
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    if "@" in authority:
        hint = "give the neuron's key as api_key: {file: PATH}"
        raise AddressFault("the URL holds a user name or password", hint)
    tail = rest[len(authority) :]
    if tail not in ("", "/"):
        raise _tail_fault(tail)
    return f"{scheme.lower()}://{_authority(authority)}"


_ENDPOINT_HINT = "write http://host:port"


def _tail_fault(tail: str) -> AddressFault:
    if tail.rstrip("/") == "/v1":
        hint = "leave /v1 out: cortexd adds it to each request"
        return AddressFault("the URL has a path", hint)
    return AddressFault("the URL has a path, query or fragment", "write only http://host:port")


def _authority(authority: str) -> str:
    try:
        host = urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        host = ""
    bracketed = authority.startswith("[")
    if not (_is_ipv6(host) if bracketed else _is_host(host)):
        raise AddressFault("the URL has no valid host", _ENDPOINT_HINT)
    rest = authority[authority.find("]") + 1 :] if bracketed else authority[len(host) :]
    shown = f"[{host}]" if bracketed else host
    if not rest:
        return shown
    if not rest.startswith(":"):
        raise AddressFault("the URL has no valid host", _ENDPOINT_HINT)
    return f"{shown}:{_port(rest[1:], lowest=1)}"


def _port(text: str, *, lowest: int) -> int:
    if re.fullmatch(r"[0-9]{1,5}", text) and lowest <= int(text) <= 65_535:
        return int(text)
    raise AddressFault("not a port", f"a port is a number from {lowest} to 65535")


def _is_host(text: str) -> bool:
    if re.fullmatch(r"[0-9.]+", text):
        return _ip(text) is not None
    return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None


def _is_ipv6(text: str) -> bool:
    return isinstance(_ip(text), ipaddress.IPv6Address)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on this host."""
    found = _ip(_canonical(host))
    return found is not None and found.is_loopback


def _canonical(host: str) -> str:
    """One spelling per address; "*" for all of them."""
    host = "127.0.0.1" if host.lower() == "localhost" else host
    found = _ip(host)
    if found is None:
        return host.lower().rstrip(".")
    return "*" if found.is_unspecified else str(found)
