"""The verbs' side of the admin socket: where it is, how it is asked, and what can go wrong.

Owns the flags that all these verbs have and the words for a daemon that does not answer. Knows
nothing of what is asked; each verb decodes its own answer.
"""

import argparse
import contextlib
import http.client
import os
import socket
import sys
from collections.abc import Callable, Mapping

import msgspec

from cortexd.cli.printable import printable
from cortexd.fleet.operations import Lines, ModelLine, NeuronLine

DEFAULT_SOCKET = "/run/cortexd/admin.sock"
SOCKET_VARIABLE = "CORTEXD_ADMIN_SOCKET"

ANSWER_SECONDS = 10
"""What is answered from what the daemon knows."""

LOAD_SECONDS = 3_600
"""A load: longer than any neuron is waited for, so that it is the daemon that gives up first."""


class NotAnswered(Exception):
    """What was asked was not done; the message is one line that says why and what to do."""


class _Error(msgspec.Struct, frozen=True):
    message: str
    hint: str = ""


class _Refused(msgspec.Struct, frozen=True):
    error: _Error


def add_socket_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every verb on the admin socket has."""
    default = os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=default,
        help=f"the daemon's admin socket (default: ${SOCKET_VARIABLE}, else {DEFAULT_SOCKET})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead")


def add_model_flags(parser: argparse.ArgumentParser, *, neuron: str) -> None:
    """Add a model and `--neuron`, whose help is given."""
    parser.add_argument("model", metavar="MODEL", help="its id, or an alias")
    parser.add_argument("--neuron", metavar="NEURON", help=neuron)


def with_errors_told(
    act: Callable[[argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """A verb that prints a NotAnswered in one line and ends with 1."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return act(arguments)
        except NotAnswered as problem:
            print(f"cortexd {arguments.verb}: {printable(str(problem))}", file=sys.stderr)
            return 1

    return run


def ask(
    arguments: argparse.Namespace,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    seconds: float | None = None,
) -> Lines:
    """GET a path, or POST `body` to it, waiting at most `seconds` for each part of the answer.

    None: as long as it takes to answer from memory. Raises NotAnswered.
    """
    where = arguments.socket
    seconds = ANSWER_SECONDS if seconds is None else seconds
    try:
        with contextlib.closing(UnixConnection(where, seconds)) as connection:
            if body is None:
                connection.request("GET", path)
            else:
                as_json = {"content-type": "application/json"}
                connection.request("POST", path, msgspec.json.encode(body), as_json)
            answer = connection.getresponse()
            raw = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotAnswered(_why(error, where, seconds)) from error
    try:
        if answer.status == 200:
            return msgspec.json.decode(raw, type=Lines)
        refused = msgspec.json.decode(raw, type=_Refused).error
    except ValueError as error:
        raise NotAnswered(_stranger(where)) from error
    raise NotAnswered(f"{refused.message} {refused.hint}".strip())


def models(lines: Lines) -> list[ModelLine]:
    """The models of an answer."""
    return lines.models or []


def neurons(lines: Lines) -> list[NeuronLine]:
    """The neurons of an answer."""
    return lines.neurons or []


def print_json(lines: Lines) -> None:
    """Print an answer as the daemon gave it, indented."""
    print(msgspec.json.format(msgspec.json.encode(lines), indent=2).decode())


def tell(arguments: argparse.Namespace, words: str) -> None:
    """Say at once what goes on; on standard error, so that the answer stays alone on the other."""
    print(f"cortexd {arguments.verb}: {words}", file=sys.stderr, flush=True)


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of a host."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.settimeout(self.timeout)
            peer.connect(self._path)
        except BaseException:
            peer.close()
            raise
        self.sock = peer


def _why(error: OSError | http.client.HTTPException, where: str, seconds: float) -> str:
    """What kept the daemon's answer from us, and what to do about it."""
    named = f"--socket PATH or ${SOCKET_VARIABLE} says where its admin socket is"
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return (
                f"there is no admin socket {where}. Is cortexd running? Outside of systemd it has "
                f"one only where gateway.admin_socket is set; {named}."
            )
        case http.client.RemoteDisconnected() | http.client.IncompleteRead():
            return "the daemon hung up before it had answered. Its log says why."
        case ConnectionResetError() | BrokenPipeError():
            return "the daemon hung up before it had answered. Its log says why."
        case ConnectionRefusedError():
            return f"nobody listens on {where} any more. Start cortexd; or {named}."
        case PermissionError():
            return f"no permission for {where}. Ask as the user that cortexd runs as, or as root."
        case TimeoutError():
            return f"no answer within {seconds:g} s. What was asked may still go on in the daemon."
        case BlockingIOError():
            return f"the daemon on {where} takes no more connections. Its log may say why."
        case OSError():
            return f"cannot use {where}: {error.strerror or error}. Note that {named}."
    return _stranger(where)


def _stranger(where: str) -> str:
    return f"what answers on {where} is not the admin socket of a cortexd of this version."
