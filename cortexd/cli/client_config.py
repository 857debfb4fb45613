"""`cortexd client-config`: what to write where, so that a program uses this gateway.

Owns the flags and the question to a running daemon: which models there are, with which limits.
Without an answer the snippets are printed all the same. Knows no client: those are data, in
cortexd/cli/clients/. Snippets go to standard output and what is to be said about them to standard
error, so that a snippet can be sent into a file.
"""

import argparse
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

import msgspec

from cortexd.cli.clients.snippet import MODEL_PLACEHOLDER, Client, Wanted
from cortexd.cli.clients.table import CLIENTS
from cortexd.cli.web_address import ADDRESS_WANTED, is_web_address

DEFAULT_URL = "http://127.0.0.1:31313"
KEY_VARIABLE = "CORTEXD_API_KEY"
_SECONDS = 5
_BYTES_MAX = 16 * 1024 * 1024


class _Model(msgspec.Struct, frozen=True):
    """What is needed of an entry of `GET /v1/models`."""

    id: str
    limit: dict[str, int] = {}
    loaded: bool = True
    modalities: tuple[str, ...] = ("text",)


class _Models(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...]


class _NotTold(Exception):
    """Why the daemon's models are not known; the message ends a sentence."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "client-config",
        help="print what to write into a client's configuration",
        description="Print ready configuration for a client. Without CLIENT: list the clients. "
        "A running daemon is asked for its models where a key is known; nothing is written.",
    )
    parser.add_argument("client", metavar="CLIENT", nargs="?", choices=CLIENTS, help="for which")
    parser.add_argument(
        "--url", default=DEFAULT_URL, help=f"the gateway's address (default: {DEFAULT_URL})"
    )
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--key", help="the key, to be written out")
    key.add_argument(
        "--key-env",
        metavar="NAME",
        default=KEY_VARIABLE,
        help=f"the variable that holds the key (default: {KEY_VARIABLE})",
    )
    parser.add_argument("--model", metavar="NAME", help="the model (default: the daemon's first)")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list, or one client's snippets; 2 for an address or a variable that is none."""
    if arguments.client is None:
        _print_list(as_json=arguments.json)
        return 0
    root = arguments.url.rstrip("/").removesuffix("/v1")
    problem = _mistake(root, arguments)
    if problem is not None:
        print(f"cortexd client-config: {problem}", file=sys.stderr)
        return 2
    wanted, notes = _wanted(root, arguments)
    _print_client(CLIENTS[arguments.client], wanted, notes, as_json=arguments.json)
    return 0


def _mistake(root: str, arguments: argparse.Namespace) -> str | None:
    if not is_web_address(root):
        return ADDRESS_WANTED
    variable = arguments.key_env
    if not (variable.isascii() and variable.isidentifier()):
        return "--key-env takes the name of a variable, not a key"
    for flag, value in (("--key", arguments.key), ("--model", arguments.model)):
        if value is not None and not (value and value.isprintable()):
            return f"{flag} is empty, or has characters in it that cannot be written"
    return None


def _wanted(root: str, arguments: argparse.Namespace) -> tuple[Wanted, Sequence[str]]:
    """What the snippets are to say, and what could not be found out."""
    key = arguments.key or os.environ.get(arguments.key_env)
    facts = Wanted(root, arguments.key, arguments.key_env, arguments.model or MODEL_PLACEHOLDER)
    try:
        model = _chosen(_models(root, key), arguments.model)
    except _NotTold as reason:
        about = "the model's limits are not known" if arguments.model else "put in a model yourself"
        return facts, [f"{reason}: {about}."]
    limits = model.limit
    filled = msgspec.structs.replace(
        facts, model=model.id, context=limits.get("context"), output=limits.get("output")
    )
    return filled, ()


def _chosen(models: Sequence[_Model], name: str | None) -> _Model:
    """The model of that name; without one the first for text, rather one that is loaded."""
    if name is not None:
        for model in models:
            if model.id == name:
                return model
        raise _NotTold(f"{name} is not among the models that this key may use")
    for_text = [model for model in models if "text" in model.modalities]
    for model in sorted(for_text, key=lambda each: not each.loaded):
        return model
    raise _NotTold("the daemon has no model for this key")


def _models(root: str, key: str | None) -> Sequence[_Model]:
    """`GET /v1/models`, past any proxy. Raises _NotTold."""
    if key is None:
        raise _NotTold("no key is known, so the daemon was not asked for its models")
    request = urllib.request.Request(f"{root}/v1/models")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request.add_header("Authorization", f"Bearer {key}")
        with direct.open(request, timeout=_SECONDS) as answer:
            raw = answer.read(_BYTES_MAX)
        return msgspec.json.decode(raw, type=_Models).data
    except urllib.error.HTTPError as error:
        error.close()
        why = "does not take this key" if error.code in (401, 403) else f"answered {error.code}"
        raise _NotTold(f"{root} {why}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _NotTold(f"no cortexd answers at {root}") from error


def _print_list(*, as_json: bool) -> None:
    if as_json:
        _print_json([{"client": client.name, "what": client.what} for client in CLIENTS.values()])
        return
    width = max(map(len, CLIENTS))
    for client in CLIENTS.values():
        print(f"{client.name:<{width}}  {client.what}")


def _print_client(client: Client, wanted: Wanted, notes: Sequence[str], *, as_json: bool) -> None:
    snippets = client.snippets(wanted)
    notes = (*notes, *client.notes)
    if as_json:
        _print_json({"client": client.name, "snippets": snippets, "notes": notes})
        return
    for snippet in snippets:
        _tell(f"--- {snippet.where}")
        sys.stdout.write(snippet.text)
        sys.stdout.flush()
    for note in notes:
        _tell(f"note: {note}")


def _print_json(answer: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
