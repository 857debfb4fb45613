"""The packet that wakes a machine, on real UDP sockets."""

from __future__ import annotations

import pytest
import trio

from cortexd.fleet.wake import WakeFailed, magic_packet, send_magic_packet

MAC = "52:54:00:12:ab:ff"
PACKET = bytes.fromhex("ffffffffffff" + 16 * "52540012abff")


def test_a_magic_packet_is_ones_and_sixteen_times_the_address() -> None:
    assert magic_packet(MAC) == PACKET
    assert len(PACKET) == 102


def test_a_hardware_address_may_have_dashes_and_capitals() -> None:
    assert magic_packet("52-54-00-12-AB-FF") == PACKET


@pytest.mark.parametrize("mac", ["", "52:54:00:12:ab", "52:54:00:12:ab:ff:00", "beast"])
async def test_what_is_no_hardware_address_is_not_sent(mac: str) -> None:
    with pytest.raises(ValueError, match=r"address|hex"):
        await send_magic_packet(mac, "127.0.0.1:9")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.255", "[::1]"])
async def test_the_packet_arrives_at_one_host_and_at_a_broadcast_address(host: str) -> None:
    """The middle one is the broadcast address of loopback: the kernel asks for a permission."""
    family = trio.socket.AF_INET6 if host.startswith("[") else trio.socket.AF_INET
    with trio.fail_after(5), trio.socket.socket(family, trio.socket.SOCK_DGRAM) as receiving:
        await receiving.bind((host.strip("[]"), 0))
        port = receiving.getsockname()[1]
        await send_magic_packet(MAC, f"{host}:{port}")
        assert await receiving.recv(1000) == PACKET


@pytest.mark.parametrize(
    ("broadcast", "reason"),
    [
        ("127.0.0.1:0", "invalid argument"),
        (f"{'x' * 64}.invalid:9", "no such name"),
        ("127.0.0.1:none", ""),  # in the resolver's own words
    ],
)
async def test_a_packet_that_cannot_leave_is_a_failure_with_a_reason(
    broadcast: str, reason: str
) -> None:
    with trio.fail_after(10), pytest.raises(WakeFailed) as caught:
        await send_magic_packet(MAC, broadcast)
    assert caught.value.reason
    assert reason in caught.value.reason
