"""`cortexd load`: have a model loaded, and wait until it can serve."""

import argparse
from collections.abc import Sequence

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
from cortexd.cli.fleet_tables import duration, print_models
from cortexd.fleet.operations import ModelLine


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "load",
        help="load a model",
        description="Load a model and wait until it can serve. Ctrl-C ends the waiting, not the "
        "load.",
    )
    add_model_flags(parser, neuron="load it there; without it, where it fits best")
    add_socket_flags(parser)
    parser.set_defaults(run=with_errors_told(_load))


def _load(arguments: argparse.Namespace) -> int:
    wanted = {"model": arguments.model, "neuron": arguments.neuron}
    expectation = _expectation(models(ask(arguments, "/models")), **wanted)
    if expectation is not None:
        tell(arguments, expectation)
    try:
        lines = ask(arguments, "/load", wanted, seconds=LOAD_SECONDS)
    except KeyboardInterrupt:
        tell(arguments, "no longer waiting; the load goes on, and `cortexd models` shows how far.")
        raise
    if arguments.json:
        print_json(lines)
    else:
        print_models(models(lines))
    return 0


def _expectation(lines: Sequence[ModelLine], *, model: str, neuron: str | None) -> str | None:
    """What is waited for, and how long that is expected to take. None: nobody knows the model, so
    that the daemon will have something else to say.
    """
    of_model = [line for line in lines if line.is_called(model)]
    if not of_model:
        return None
    there = [line for line in of_model if neuron in (None, line.neuron)]
    if any(line.status == "loaded" for line in there):
        return f"{model} is loaded already."
    # A load that is under way tells more than what one would take.
    known = [line.eta_seconds for line in (*there, *of_model) if line.eta_seconds is not None]
    about = f"about {duration(known[0])}" if known else "a time that is not known yet"
    return f"waiting for {model}: {about}. Ctrl-C ends the waiting, not the load."
