"""`cortexd serve`: the daemon in the foreground, from a configuration file."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cortexd.cli.notices import notices_of
from cortexd.cli.standard_output import OutputLost
from cortexd.config.load import ConfigProblems, load, render
from cortexd.daemon.run import DaemonSettings, serve_forever


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="run the daemon in the foreground",
        description="Run the gateway in the foreground until SIGTERM or SIGINT. "
        "Flags win over CORTEXD_... variables, which win over the file.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration (YAML)")
    add_listen_flags(parser)
    parser.set_defaults(run=run)


def add_listen_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every verb with listeners has."""
    for name, what in (("listen", "gateway"), ("metrics-listen", "metrics listener")):
        parser.add_argument(
            f"--{name}",
            metavar="HOST:PORT",
            help=f"where the {what} listens; port 0 picks a free one; also unix:/path",
        )


def listen_flags(arguments: argparse.Namespace) -> dict[str, str]:
    """The listen flags that were given, as overrides of the configuration."""
    given = {
        "gateway.listen": arguments.listen,
        "gateway.metrics_listen": arguments.metrics_listen,
    }
    return {path: address for path, address in given.items() if address is not None}


def announce(lines: Sequence[str]) -> None:
    """Print the `listening ...` lines at once, for whoever waits for them.

    Where nobody can read them the daemon serves all the same.
    """
    try:
        print(*lines, sep="\n", flush=True)
    except OutputLost as lost:
        print(f"notice: {lost}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """Serve; 2 for a configuration that does not hold, with every problem in it.

    1 where only the host is in the way: the ledger's disk may come, or become writable, later.
    """
    try:
        loaded = load(Path(arguments.config), os.environ, listen_flags(arguments))
    except ConfigProblems as found:
        print(render(found.problems), file=sys.stderr)
        return 1 if found.may_pass else 2
    for notice in notices_of(loaded):
        print(f"notice: {notice}", file=sys.stderr)
    return serve_forever(
        DaemonSettings(config=loaded.config, catalogue=loaded.catalogue, announce=announce)
    )
