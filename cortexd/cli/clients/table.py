"""Every client that `cortexd client-config` knows, in the order of its list."""

from cortexd.cli.clients import agents, editors, front_ends, programs
from cortexd.cli.clients.snippet import Client

_IN_ORDER = (*agents.CLIENTS, *editors.CLIENTS, *front_ends.CLIENTS, *programs.CLIENTS)

CLIENTS: dict[str, Client] = {client.name: client for client in _IN_ORDER}
