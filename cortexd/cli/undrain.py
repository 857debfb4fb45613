"""`cortexd undrain`: let a neuron take requests and loads again."""

import argparse

from cortexd.cli.admin_client import add_socket_flags, ask, neurons, print_json, with_errors_told
from cortexd.cli.fleet_tables import print_neurons


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "undrain",
        help="let a drained neuron take requests and loads again",
        description="Let a neuron that was drained take requests and loads again.",
    )
    parser.add_argument("neuron", metavar="NEURON", help="its name in the configuration")
    add_socket_flags(parser)
    parser.set_defaults(run=with_errors_told(_undrain))


def _undrain(arguments: argparse.Namespace) -> int:
    lines = ask(arguments, "/undrain", {"neuron": arguments.neuron})
    if arguments.json:
        print_json(lines)
    else:
        print_neurons(neurons(lines))
    return 0
