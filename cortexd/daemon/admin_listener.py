"""The admin socket: what an operator asks of the fleet, as HTTP/1.1 over a unix socket.

Owns its paths, its bodies and its errors. Who may use it is decided by the mode of the socket alone
(daemon/sockets.py), so there are no keys. Refuses to know how anything is done: that is behind
`Operations`.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, TypeVar

import msgspec
import trio

from cortexd.daemon.faces import serve_core
from cortexd.daemon.http_server import Closing, ServerLimits
from cortexd.daemon.logs import quoted
from cortexd.daemon.sockets import open_admin_socket
from cortexd.deadlines import Deadlines
from cortexd.dialects.refusals import Refusal, RefusalKind, render
from cortexd.fleet.operations import Lines, ModelLine, NotDone, Operations
from cortexd.gateway.bodies import BodyLimits
from cortexd.gateway.exchange import Client, Head, Incoming

log = logging.getLogger("cortexd.admin")

METHODS: Mapping[str, str] = {
    "/models": "GET",
    "/neurons": "GET",
    "/load": "POST",
    "/unload": "POST",
    "/pin": "POST",
    "/unpin": "POST",
    "/drain": "POST",
    "/undrain": "POST",
}
"""Path -> the method that it wants."""

SERVER_LIMITS = ServerLimits(
    connections_max=64,
    head_bytes_max=16_384,
    head_seconds=10,
    idle_seconds=60,
    send_stall_seconds=10,
)
BODY_LIMITS = BodyLimits(body_bytes_max=65_536, bodies_bytes_max=1_048_576, body_seconds=10)

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_NAMES_MAX = 1_000


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request says; a field more is a mistake that somebody should hear of."""


class _Placed(_Body, frozen=True):
    model: _Text
    neuron: _Text | None = None


class _Pinned(_Body, frozen=True):
    model: _Text
    neurons: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=_NAMES_MAX)]


class _Model(_Body, frozen=True):
    model: _Text


class _Neuron(_Body, frozen=True):
    neuron: _Text


_BodyT = TypeVar("_BodyT", bound=_Body)
_Done = Lines | NotDone

_EXAMPLES: Mapping[type[_Body], str] = {
    _Placed: '{"model": "org/name", "neuron": "beast"}, of which neuron may be left out',
    _Pinned: '{"model": "org/name", "neurons": ["beast"]}',
    _Model: '{"model": "org/name"}',
    _Neuron: '{"neuron": "beast"}',
}


class _Misunderstood(Exception):
    """A body that is not what its path wants; carries what to say of it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class AdminCore:
    """A core that hands everything to `Operations`."""

    def __init__(self, operations: Operations) -> None:
        """Do what is asked with `operations`."""
        self._operations = operations
        self._actions: Mapping[str, Callable[[bytes], Awaitable[_Done]]] = {
            "/models": self._models,
            "/neurons": self._neurons,
            "/load": self._load,
            "/unload": self._unload,
            "/pin": self._pin,
            "/unpin": self._unpin,
            "/drain": self._drain,
            "/undrain": self._undrain,
        }

    def admit(self, head: Head) -> str | Refusal:
        """The path that is asked for, or why not."""
        method = METHODS.get(head.path)
        if method is None:
            known = ", ".join(METHODS)
            return Refusal(RefusalKind.UNKNOWN_URL, f"The admin socket answers {known} only.")
        allowed = ("GET", "HEAD") if method == "GET" else (method,)
        if head.method not in allowed:
            return Refusal(
                RefusalKind.METHOD_NOT_ALLOWED,
                f"{head.path} wants {method}, not {head.method}.",
                allowed_methods=allowed,
            )
        return head.path

    async def refuse(self, refusal: Refusal, head: Head, client: Client) -> None:
        """Answer a request that makes no sense here."""
        rendered = render(refusal, request_id=head.request_id)
        await client.start(rendered.status, rendered.headers)
        await client.finish(rendered.body)

    async def serve(self, admitted: str, incoming: Incoming, client: Client) -> None:
        """Do what is asked and answer. A client that leaves meanwhile stops nothing."""
        try:
            done = await self._actions[admitted](incoming.body)
        except _Misunderstood as fault:
            await self.refuse(fault.refusal, incoming.head, client)
            return
        status = 200
        body: object = done
        if isinstance(done, NotDone):
            log.warning("event=operator_not_done path=%s what=%s", admitted, quoted(done.what))
            status, body = done.status, {"error": {"message": done.what, "hint": done.hint}}
        encoded = msgspec.json.encode(body)
        length = b"%d" % len(encoded)
        headers = ((b"content-type", b"application/json"), (b"content-length", length))
        await client.start(status, headers)
        await client.finish(encoded)

    async def _models(self, _: bytes) -> _Done:
        return Lines(models=self._operations.models())

    async def _neurons(self, _: bytes) -> _Done:
        return Lines(neurons=self._operations.neurons())

    async def _load(self, body: bytes) -> _Done:
        asked = _understood("load", body, _Placed)
        return _lines(await self._operations.load(asked.model, asked.neuron))

    async def _unload(self, body: bytes) -> _Done:
        asked = _understood("unload", body, _Placed)
        return _lines(await self._operations.unload(asked.model, asked.neuron))

    async def _pin(self, body: bytes) -> _Done:
        asked = _understood("pin", body, _Pinned)
        return _lines(self._operations.pin(asked.model, tuple(dict.fromkeys(asked.neurons))))

    async def _unpin(self, body: bytes) -> _Done:
        return _lines(self._operations.pin(_understood("unpin", body, _Model).model, None))

    async def _drain(self, body: bytes) -> _Done:
        neuron = _understood("drain", body, _Neuron).neuron
        return self._operations.drain(neuron) or self._line_of(neuron)

    async def _undrain(self, body: bytes) -> _Done:
        neuron = _understood("undrain", body, _Neuron).neuron
        return self._operations.undrain(neuron) or self._line_of(neuron)

    def _line_of(self, neuron: str) -> Lines:
        return Lines(neurons=[one for one in self._operations.neurons() if one.neuron == neuron])


async def serve_admin(
    operations: Operations,
    path: str,
    deadlines: Deadlines,
    *,
    contained: Callable[[], None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the admin socket at `path` until cancelled, then remove it.

    Started once it can be connected to. `contained` is called for every connection that ended in an
    exception. Raises ListenProblem.
    """
    with open_admin_socket(path) as opened:
        opened.setblocking(False)
        await serve_core(
            AdminCore(operations),
            trio.SocketListener(trio.socket.from_stdlib_socket(opened)),
            SERVER_LIMITS,
            BODY_LIMITS,
            closing=Closing(0),
            deadlines=deadlines,
            contained=contained,
            hears_hang_ups=False,
            task_status=task_status,
        )


def _understood(action: str, body: bytes, kind: type[_BodyT]) -> _BodyT:
    """The body as its path wants it, and a line in the log of who asked for what."""
    try:
        asked = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _misunderstood(RefusalKind.INVALID_PARAMETER, action, str(error), kind) from error
    except ValueError as error:  # also what is not UTF-8
        raise _misunderstood(RefusalKind.INVALID_JSON, action, "not JSON", kind) from error
    said = msgspec.structs.asdict(asked).items()
    words = " ".join(f"{name}={quoted(_word(value))}" for name, value in said if value is not None)
    log.info("event=operator_asked action=%s %s", action, words)
    return asked


def _misunderstood(kind: RefusalKind, action: str, why: str, body: type[_Body]) -> _Misunderstood:
    message = f"The body of POST /{action} is not understood: {why}. Send {_EXAMPLES[body]}."
    return _Misunderstood(Refusal(kind, message))


def _word(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _lines(done: list[ModelLine] | NotDone) -> _Done:
    return done if isinstance(done, NotDone) else Lines(models=done)
