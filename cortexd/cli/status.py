"""`cortexd status`: the fleet as a running daemon sees it, asked over its metrics listener."""

import argparse
import contextlib
import http.client
import sys
import urllib.request

import msgspec

from cortexd.cli.admin_client import UnixConnection
from cortexd.cli.printable import printable
from cortexd.cli.web_address import ADDRESS_WANTED, is_web_address
from cortexd.fleet.view import FleetView, ModelView, NeuronView

DEFAULT_URL = "http://127.0.0.1:31314"
_SECONDS = 10
_WIDTH_FOR_PIPES = 1000  # a table that goes on to grep must not be folded


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "status",
        help="show neurons, health, models, memory and load",
        description="Show the fleet as a running daemon sees it.",
    )
    parser.add_argument(
        "--url", default=DEFAULT_URL, help=f"the daemon's metrics listener (default: {DEFAULT_URL})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and print; 1 when no daemon answers there, 2 for an address that is none."""
    url, path = arguments.url, arguments.url.removeprefix("unix:")
    if path in (url, "") and not is_web_address(url):
        print(f"cortexd status: {ADDRESS_WANTED}, or unix: and a path", file=sys.stderr)
        return 2
    try:
        raw = _ask(url) if path == url else _ask_path(path)
        view = msgspec.json.decode(raw, type=FleetView)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(
            f"cortexd status: no answer from {url}: {error}\n"
            "Is the daemon running? --url takes the address of its `listening metrics` line.",
            file=sys.stderr,
        )
        return 1
    if arguments.json:
        print(raw.decode())
    else:
        print_table(view)
    return 0


def _ask(url: str) -> bytes:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url.rstrip('/')}/status", timeout=_SECONDS) as answer:
        body: bytes = answer.read()
    return body


def _ask_path(path: str) -> bytes:
    with contextlib.closing(UnixConnection(path, _SECONDS)) as connection:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}: not the metrics listener")
        return answer.read()


def print_table(view: FleetView) -> None:
    """Print one row per neuron and model."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("NEURON", "HEALTH", "MODEL", "STATE"):
        table.add_column(heading, overflow="fold")
    for heading in ("IN FLIGHT", "QUEUE", "VRAM FREE"):
        table.add_column(heading, justify="right")
    for neuron in view.neurons.values():
        models: list[ModelView | None] = [*neuron.models.values()]
        for index, model in enumerate(models or [None]):
            first = (neuron.name, _health(neuron)) if index == 0 else ("", "")
            vram = _vram(neuron) if index == 0 else ""
            table.add_row(*map(printable, (*first, *_model_cells(model), vram)))
    width = None if sys.stdout.isatty() else _WIDTH_FOR_PIPES
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def _health(neuron: NeuronView) -> str:
    if neuron.healthy:
        return "healthy" if not neuron.misses else f"healthy, {neuron.misses} missed"
    return f"unhealthy: {neuron.reason}" if neuron.reason else "not heard of yet"


def _model_cells(model: ModelView | None) -> tuple[str, str, str, str]:
    if model is None:
        return ("-", "", "", "")
    state = model.status.value
    if not model.is_servable:
        reason = model.servable.reason if model.servable is not None else None
        state += f", not servable: {reason or 'no reason given'}"
    return (
        model.id,
        state,
        _of(model.load.in_flight, model.load.max_in_flight),
        _of(model.load.queue_depth, model.load.max_queue_depth),
    )


def _of(count: int, most: int) -> str:
    return f"{count}/{most}" if most else str(count)


def _vram(neuron: NeuronView) -> str:
    free = [device.vram_free_mb for device in neuron.devices if device.vram_free_mb is not None]
    total = [device.vram_total_mb for device in neuron.devices if device.vram_total_mb is not None]
    if not free:
        return ""
    return f"{sum(free)} MB" + (f" of {sum(total)}" if total else "")
