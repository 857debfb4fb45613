"""`cortexd drain`: give a neuron nothing new, and wait until it has nothing left if asked to."""

import argparse
import time

from cortexd.cli.admin_client import (
    NotAnswered,
    add_socket_flags,
    ask,
    neurons,
    print_json,
    tell,
    with_errors_told,
)
from cortexd.cli.fleet_tables import print_neurons
from cortexd.fleet.operations import Lines

_LOOK_SECONDS = 0.5  # the daemon answers from memory, and its user wants to go on


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "drain",
        help="give a neuron no further requests or loads",
        description="Give a neuron no further requests and no loads, until `cortexd undrain` or "
        "the daemon's end. Requests that it has go on.",
    )
    parser.add_argument("neuron", metavar="NEURON", help="its name in the configuration")
    parser.add_argument("--wait", action="store_true", help="until it has no request left")
    add_socket_flags(parser)
    parser.set_defaults(run=with_errors_told(_drain))


def _drain(arguments: argparse.Namespace) -> int:
    lines = ask(arguments, "/drain", {"neuron": arguments.neuron})
    if arguments.wait:
        lines = _drained(arguments)
    if arguments.json:
        print_json(lines)
    else:
        print_neurons(neurons(lines))
    return 0


def _drained(arguments: argparse.Namespace) -> Lines:
    """The neuron's line, once it has no request left. Raises NotAnswered if it drains no more."""
    told = 0
    while True:
        found = [
            line for line in neurons(ask(arguments, "/neurons")) if line.neuron == arguments.neuron
        ]
        if not found or not found[0].draining:
            raise NotAnswered(f"{arguments.neuron} is not draining any more: somebody changed it.")
        in_flight = found[0].in_flight
        if not in_flight:
            return Lines(neurons=found)
        if in_flight != told:
            tell(arguments, f"{arguments.neuron} has {in_flight} in flight.")
            told = in_flight
        time.sleep(_LOOK_SECONDS)
