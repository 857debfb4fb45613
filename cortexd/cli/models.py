"""`cortexd models`: every model and neuron as loading, unloading and draining see them."""

import argparse

from cortexd.cli.admin_client import (
    add_socket_flags,
    ask,
    models,
    neurons,
    print_json,
    with_errors_told,
)
from cortexd.cli.fleet_tables import print_models, print_neurons
from cortexd.fleet.operations import Lines


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "models",
        help="show where every model is or could be, and how the neurons are",
        description="Show every model on every neuron, those of the catalogue that are loaded "
        "nowhere and where they would fit, and every neuron.",
    )
    add_socket_flags(parser)
    parser.set_defaults(run=with_errors_told(_show))


def _show(arguments: argparse.Namespace) -> int:
    lines = Lines(models(ask(arguments, "/models")), neurons(ask(arguments, "/neurons")))
    if arguments.json:
        print_json(lines)
    else:
        print_models(models(lines))
        print()
        print_neurons(neurons(lines))
    return 0
