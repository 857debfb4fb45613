"""One connection to a neuron, plain or TLS: bytes out, bytes in, gone at once when closed.

Owns sockets and their errors, all of which become `LinkBroken`. Refuses to know HTTP, and whether
a connection is worth keeping. On plain TCP it works on the descriptor and waits only when the
kernel has nothing: faster than through trio's streams, and a look at an idle connection costs 1 µs.
TLS is trio's SSLStream over the same.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from cortexd.fleet.addresses import Address

RECEIVE_BYTES = 65_536


class LinkBroken(Exception):
    """The connection is of no use any more; `reason` is in words without the neuron's own."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Link(Protocol):
    """What the pool needs of a connection. Used by one task at a time."""

    @property
    def descriptor(self) -> int | None:
        """Where the kernel can tell of bytes by itself; None when one has to read for it."""

    def send_now(self, data: bytes) -> memoryview | None:
        """Send what goes without waiting; returns what is left, None when nothing is."""

    async def send(self, data: memoryview) -> None:
        """Send all of it."""

    def receive_now(self) -> bytes | None:
        """What has come already; None when one has to wait, b"" at the end."""

    async def receive(self) -> bytes:
        """Wait for bytes; b"" at the end."""

    def is_quiet_now(self) -> bool | None:
        """Whether an idle connection is open and has nothing to say; None: it has to be awaited."""

    async def is_quiet(self) -> bool:
        """The same, where it has to be awaited. Raises nothing."""

    def has_unread(self) -> bool:
        """Whether bytes have come that nobody has read, or the end."""

    def close(self) -> None:
        """Close at once, whoever is waiting; may be called again."""


class PlainLink:
    """A TCP connection, on the descriptor."""

    __slots__ = ("_readable", "_socket", "descriptor")

    def __init__(self, connected: socket.socket) -> None:
        """Take over a connected, non-blocking socket."""
        self._socket = connected
        self._readable: select.poll | None = None
        self.descriptor: int | None = connected.fileno()

    def send_now(self, data: bytes) -> memoryview | None:
        """See `Link`."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise LinkBroken(_reason(error)) from error
        return None if sent == len(data) else memoryview(data)[sent:]

    async def send(self, data: memoryview) -> None:
        """See `Link`. A cancel leaves an unknown part sent."""
        while data:
            try:
                await trio.lowlevel.wait_writable(self._socket)
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError) as error:
                raise LinkBroken(_reason(error)) from error

    def receive_now(self) -> bytes | None:
        """See `Link`."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkBroken(_reason(error)) from error

    async def receive(self) -> bytes:
        """See `Link`. Always checkpoints; a cancel loses nothing."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError) as error:
                raise LinkBroken(_reason(error)) from error

    def is_quiet_now(self) -> bool:
        """See `Link`. Readable is what has ended, and what has bytes that nobody asked for."""
        if self._readable is None:
            self._readable = select.poll()
            self._readable.register(self._socket, select.POLLIN)
        return not self._readable.poll(0)  # a third of what a recv costs that finds nothing

    async def is_quiet(self) -> bool:
        """See `Link`. Does not checkpoint."""
        return self.is_quiet_now()

    def has_unread(self) -> bool:
        """See `Link`."""
        return self._socket.fileno() >= 0 and not self.is_quiet_now()

    def close(self) -> None:
        """See `Link`."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class _NothingCame(Exception):
    """Raised through an SSLStream that was asked only for what is there already."""


class _Transport(trio.abc.Stream):
    """What an SSLStream runs over: a plain connection, with a way to read without waiting."""

    def __init__(self, link: PlainLink) -> None:
        self._link = link
        self.may_wait = True
        self.is_asked = False
        """Whether everything was read that came before: the stream has asked for more."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        try:
            await self._link.send(memoryview(data))
        except LinkBroken as broken:
            raise trio.BrokenResourceError from broken

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self.may_wait and self._link.is_quiet_now():
            raise _NothingCame
        self.is_asked = True
        try:
            return await self._link.receive()
        except LinkBroken as broken:
            raise trio.BrokenResourceError from broken

    async def aclose(self) -> None:
        self._link.close()
        await trio.lowlevel.checkpoint()


class TlsLink:
    """A TLS connection, through trio's own stream."""

    def __init__(self, link: PlainLink, tls: ssl.SSLContext, host: str) -> None:
        """Take over a connection; `handshake` comes first."""
        self._link = link
        self._transport = _Transport(link)
        self._stream = trio.SSLStream(
            self._transport, tls, server_hostname=host, https_compatible=True
        )
        self.descriptor = None

    async def handshake(self) -> None:
        """Agree on keys and see the certificate. Raises LinkBroken."""
        try:
            await self._stream.do_handshake()
        except trio.BrokenResourceError as error:
            raise LinkBroken(_reason(error)) from error

    def send_now(self, data: bytes) -> memoryview | None:
        """See `Link`. TLS always has to wait."""
        return memoryview(data)

    async def send(self, data: memoryview) -> None:
        """See `Link`."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkBroken(_reason(error)) from error

    def receive_now(self) -> bytes | None:
        """See `Link`. TLS always has to wait."""
        return None

    async def receive(self) -> bytes:
        """See `Link`."""
        try:
            data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
            self._transport.is_asked = False
            return data
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkBroken(_reason(error)) from error

    def is_quiet_now(self) -> None:
        """See `Link`."""
        return

    async def is_quiet(self) -> bool:
        """See `Link`. Checkpoints. Decrypts what has come: it may be a mere session ticket."""
        self._transport.may_wait = False
        try:
            await self.receive()
        except _NothingCame:
            return True
        except LinkBroken:
            return False
        finally:
            self._transport.may_wait = True
        return False

    def has_unread(self) -> bool:
        """See `Link`. What has come may be no more than a session ticket; and several records come
        at once, of which the stream gives out one at a time.
        """
        return not self._transport.is_asked or self._link.has_unread()

    def close(self) -> None:
        """See `Link`. Without a closing handshake: what matters is that the neuron hears it now."""
        self._link.close()


async def connect(address: Address, tls: ssl.SSLContext | None) -> Link:
    """Open a connection (happy eyeballs), with TLS when the address asks for it.

    Raises LinkBroken. Checkpoints; a cancel closes what was open. `tls` is needed for https only.
    """
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except (OSError, ValueError) as error:  # ValueError: names that no DNS name can be
        raise LinkBroken(_reason(error)) from error
    connected = socket.socket(fileno=stream.socket.detach())
    connected.setblocking(False)
    plain = PlainLink(connected)
    if not address.secure:
        return plain
    assert tls is not None, "https needs a context"
    secured = TlsLink(plain, tls, address.host)
    try:
        await secured.handshake()
    except BaseException:
        plain.close()
        raise
    return secured


def _reason(error: BaseException) -> str:
    """Why a connection failed, in the words of the system or of the TLS library."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LinkBroken):
            return cause.reason
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'closed'})"
        if isinstance(cause, OSError) and cause.errno:
            # Resolvers count downwards, and explain themselves; trio adds addresses to the others.
            text = os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
            return (text or "no such name").lower()
        if isinstance(cause, trio.ClosedResourceError):
            return "closed"
        if isinstance(cause, BaseExceptionGroup):  # one failure for each address of a name
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    return "the connection failed"
