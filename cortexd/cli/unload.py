"""`cortexd unload`: have a model unloaded, once its requests have ended."""

import argparse

from cortexd.cli.admin_client import (
    LOAD_SECONDS,
    add_model_flags,
    add_socket_flags,
    ask,
    models,
    print_json,
    tell,
    with_errors_told,
)
from cortexd.cli.fleet_tables import print_models


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "unload",
        help="unload a model",
        description="Unload a model and wait until it is gone. Requests that it is serving may end "
        "first. It is loaded again when a request asks for it.",
    )
    add_model_flags(parser, neuron="unload it there; without it, everywhere")
    add_socket_flags(parser)
    parser.set_defaults(run=with_errors_told(_unload))


def _unload(arguments: argparse.Namespace) -> int:
    wanted = {"model": arguments.model, "neuron": arguments.neuron}
    in_flight = sum(
        line.in_flight
        for line in models(ask(arguments, "/models"))
        if line.is_called(arguments.model) and arguments.neuron in (None, line.neuron)
    )
    if in_flight:
        tell(arguments, f"waiting for what {arguments.model} has in flight: {in_flight}.")
    lines = ask(arguments, "/unload", wanted, seconds=LOAD_SECONDS)
    if arguments.json:
        print_json(lines)
    else:
        print_models(models(lines))
    return 0
