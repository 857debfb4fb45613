"""Wake-on-LAN: the packet that wakes a sleeping machine, and its sending.

Owns the packet's bytes and the socket it leaves by. Refuses to know which machine is wanted, and
whether it woke: nobody answers such a packet, a poll will tell.
"""

from __future__ import annotations

import os
from typing import Final

import trio

SEND_SECONDS: Final = 5.0
"""Looking the address up and sending, together."""

_MAC_BYTES = 6
_REPEATED = 16


class WakeFailed(Exception):
    """The packet did not leave this machine; `reason` is fit for a log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def magic_packet(mac: str) -> bytes:
    """The 102 bytes for a hardware address, with colons or dashes: six of ones, then it 16 times.

    Raises ValueError for what is no hardware address.
    """
    address = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(address) != _MAC_BYTES:
        raise ValueError(f"a hardware address of {len(address)} bytes")
    return b"\xff" * _MAC_BYTES + address * _REPEATED


async def send_magic_packet(mac: str, broadcast: str) -> None:
    """Send the packet once to `broadcast` (`host:port` or `[v6]:port`).

    Raises WakeFailed, and ValueError for a `mac` that is none. Checkpoints; a cancel leaves it sent
    or not.
    """
    packet = magic_packet(mac)
    host, _, port = broadcast.rpartition(":")
    try:
        with trio.fail_after(SEND_SECONDS):
            await _send(packet, host.removeprefix("[").removesuffix("]"), port)
    except trio.TooSlowError:
        raise WakeFailed(f"not sent within {SEND_SECONDS:g} s") from None
    except (OSError, ValueError) as error:  # ValueError: names that no DNS name can be
        raise WakeFailed(_reason(error)) from error


async def _send(packet: bytes, host: str, port: str) -> None:
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with trio.socket.socket(family, kind, protocol) as sending:
        if family == trio.socket.AF_INET:  # IPv6 has no broadcasts, and needs no leave for others
            sending.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_BROADCAST, 1)
        await sending.sendto(packet, address)


def _reason(error: OSError | ValueError) -> str:
    text: str | None = None
    if isinstance(error, OSError) and error.errno:
        # Resolvers count downwards, and explain themselves.
        text = os.strerror(error.errno) if error.errno > 0 else error.strerror
    return (text or "no such name").lower()
