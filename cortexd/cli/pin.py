"""`cortexd pin`: say where a model belongs, until the daemon ends."""

import argparse
import sys

from cortexd.cli.admin_client import add_socket_flags, ask, models, print_json, with_errors_told
from cortexd.cli.fleet_tables import print_models


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "pin",
        help="pin a model to neurons",
        description="Pin a model to neurons, in place of its pinned_on in the catalogue. It is "
        "neither loaded nor unloaded by that. Lasts until the daemon ends.",
    )
    parser.add_argument("model", metavar="MODEL", help="its id, or an alias")
    parser.add_argument("neurons", metavar="NEURON", nargs="*", help="where it belongs")
    parser.add_argument("--nowhere", action="store_true", help="pin it to no neuron")
    parser.add_argument("--clear", action="store_true", help="pin it as the catalogue says again")
    add_socket_flags(parser)
    parser.set_defaults(run=with_errors_told(_pin))


def _pin(arguments: argparse.Namespace) -> int:
    model, wanted = arguments.model, list(dict.fromkeys(arguments.neurons))
    if [bool(wanted), arguments.nowhere, arguments.clear].count(True) != 1:
        print(
            "cortexd pin: name the neurons, or give --nowhere, or --clear: one of the three",
            file=sys.stderr,
        )
        return 2
    if arguments.clear:
        lines = ask(arguments, "/unpin", {"model": model})
    else:
        lines = ask(arguments, "/pin", {"model": model, "neurons": wanted})
    if arguments.json:
        print_json(lines)
        return 0
    if arguments.clear:
        print(f"{model}: pinned as in the catalogue")
    else:
        print(f"{model}: pinned to {', '.join(wanted) or 'no neuron'}")
    if models(lines):
        print_models(models(lines))
    return 0
