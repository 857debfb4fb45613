"""Addresses of neurons: which URLs can be one, and how a neuron's own idea of its address is read.

Owns the rules for a base URL: http or https, a host, maybe a port and a path prefix, nothing else.
Refuses to know connections and configuration; it never looks a name up.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

_URL = re.compile(r"[!-~]{1,2048}")  # urlsplit would silently drop line breaks and tabs
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")


class Address(msgspec.Struct, frozen=True):
    """A base URL taken apart.

    `origin` ("http://beast:13131") tells which connections can be shared; `prefix` is the path to
    put before a request's own, without a trailing slash; `host_header` is ready to be sent.
    """

    origin: str
    secure: bool
    host: str
    port: int
    host_header: str
    prefix: str

    @property
    def url(self) -> str:
        """The base URL in one spelling: the port only where it is not the scheme's own."""
        return f"{'https' if self.secure else 'http'}://{self.host_header}{self.prefix}"


def is_host_name(text: str) -> bool:
    """Whether a text could be the name of a host, or its IPv4 address."""
    return _HOST_NAME.fullmatch(text) is not None


@functools.lru_cache(maxsize=256)
def address_of(base_url: str) -> Address:
    """Take a base URL apart; raises ValueError, whose text may be shown, if it is not one."""
    if not _URL.fullmatch(base_url):
        raise ValueError("characters that a URL cannot have")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("neither http:// nor https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials inside the URL")
    if "?" in base_url or "#" in base_url:
        raise ValueError("a query or a fragment")
    secure = parts.scheme == "https"
    port = parts.port  # raises for a port that is no number up to 65535
    if port is None:
        port = _own_port(secure=secure)
    elif port == 0:
        raise ValueError("port 0")
    host = parts.hostname or ""
    if "[" in parts.netloc and ":" not in host:
        raise ValueError("brackets around what is no IPv6 address")
    return _address(secure=secure, host=host, port=port, prefix=parts.path.rstrip("/"))


def _address(*, secure: bool, host: str, port: int, prefix: str) -> Address:
    shown = _as_in_a_url(host)
    return Address(
        origin=f"{'https' if secure else 'http'}://{shown}:{port}",
        secure=secure,
        host=host,
        port=port,
        host_header=shown if port == _own_port(secure=secure) else f"{shown}:{port}",
        prefix=prefix,
    )


def _own_port(*, secure: bool) -> int:
    return 443 if secure else 80


def _as_in_a_url(host: str) -> str:
    """A host as it stands in a URL and in a Host header, where a zone ("%eth0") has no place."""
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:  # pragma: no cover - urlsplit finds it first, since Python 3.11.4
            raise ValueError("an IPv6 address that is not one") from None
        return f"[{host.partition('%')[0]}]"
    if not is_host_name(host):
        raise ValueError("no usable host")
    return host


def reachable_from_here(url: str, *, configured: str) -> str:
    """A base URL that a neuron gave for itself, as it can be reached from this machine.

    A neuron that says "localhost" (or an unspecified address such as 0.0.0.0) means its own host,
    which from here is the host of its `configured` endpoint; scheme, port and path stay as given.
    Raises ValueError when `url` is not a base URL.
    """
    given = address_of(url)
    if not _is_the_speakers_own(given.host):
        return given.url
    host = address_of(configured).host
    return _address(secure=given.secure, host=host, port=given.port, prefix=given.prefix).url


def _is_the_speakers_own(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback or ip.is_unspecified


def without_version_path(endpoint: str) -> str:
    """An endpoint to add `/v1/...` to; operators often write it with `/v1` at its end."""
    return endpoint.rstrip("/").removesuffix("/v1").rstrip("/")
