"""`cortexd demo`: the same daemon as `serve`, with simulated neurons, and what to try with it.

Owns the words a newcomer reads and where the demo's ledger and admin socket live: in a temporary
directory that is removed at the end, or in DIR, where the ledger stays. The world itself is in
cortexd/demo/world.py, the real engine that may be beside it in cortexd/demo/engine.py.
"""

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cortexd.cli.serve import add_listen_flags, announce
from cortexd.config.addresses import AddressFault, parse_listen, socket_path_fault
from cortexd.config.schema import Gateway
from cortexd.daemon.run import DaemonSettings, serve_forever
from cortexd.daemon.sockets import ListenProblem, open_listener
from cortexd.demo.engine import (
    ENGINE,
    EngineProblem,
    RunningEngine,
    model_at,
    program_at,
    running,
)
from cortexd.demo.world import (
    BALANCE_CAP_TOKENS,
    BALANCE_KEY,
    COLD,
    DISPLACED_ON,
    DISPLACING,
    ENGINE_NEURON,
    ROLLING_CAP_TOKENS,
    ROLLING_KEY,
    ROLLING_SECONDS,
    SMALL,
    DemoWorld,
    demo_world,
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb and its arguments."""
    parser = subparsers.add_parser(
        "demo",
        help="run the daemon with simulated neurons; needs no file",
        description="Runs the daemon with three simulated neurons, five models and two API keys, "
        "and prints what to try. Leaves nothing behind, unless --state keeps its ledger.",
    )
    add_listen_flags(parser)
    parser.add_argument("--state", metavar="DIR", help="keep the ledger in DIR/ledger")
    parser.add_argument("--engine", choices=[ENGINE], help="have a real engine as well")
    parser.add_argument(
        "--engine-path", metavar="PATH", help="its program, where it is not in PATH"
    )
    parser.add_argument("--model", metavar="FILE.gguf", help="the model of that engine")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C; 1 when an address is taken, the ledger cannot be used or the engine
    does not start; 2 for half an engine or half an address.
    """
    listen = Gateway().listen if arguments.listen is None else arguments.listen
    metrics_listen = arguments.metrics_listen
    if metrics_listen is None:
        metrics_listen = Gateway().metrics_listen
    if mistake := _half_an_engine(arguments) or _no_address(listen, metrics_listen):
        print(mistake, file=sys.stderr)
        return 2
    taken = _taken("--listen", listen) or _taken("--metrics-listen", metrics_listen)
    if taken is not None:
        print(taken, file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        kept = arguments.state is not None
        state = arguments.state or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="cortexd-demo-")
        )
        return _serve(arguments, listen, metrics_listen, Path(state).absolute(), kept=kept)


def _half_an_engine(arguments: argparse.Namespace) -> str | None:
    """What is missing where only some of the flags of an engine are there."""
    if arguments.engine is None and (arguments.engine_path or arguments.model):
        return f"cortexd demo: whose model and program? Add: --engine {ENGINE}"
    if arguments.engine is not None and arguments.model is None:
        return f"cortexd demo: {ENGINE} needs a model. Add: --model FILE.gguf"
    return None


def _no_address(listen: str, metrics_listen: str) -> str | None:
    """What is wrong with an address that nothing could ever listen on."""
    for flag, address in (("--listen", listen), ("--metrics-listen", metrics_listen)):
        try:
            parse_listen(address)
        except AddressFault as fault:
            return f"cortexd demo: {flag}: {fault.what}; {fault.hint}"
    return None


def _serve(
    arguments: argparse.Namespace, listen: str, metrics_listen: str, state: Path, *, kept: bool
) -> int:
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"cortexd demo: cannot use {state}: {error.strerror}", file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        try:
            engine = _engine(arguments, state, stack)
        except EngineProblem as problem:
            print(f"cortexd demo: {problem}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0
        admin_socket = str(state / "admin.sock")
        world = demo_world(
            listen=listen,
            metrics_listen=metrics_listen,
            ledger_directory=str(state / "ledger"),
            admin_socket=None if socket_path_fault(admin_socket) else admin_socket,
            engine=engine,
        )
        stack.callback(world.close)
        return _serve_world(world, state if kept else None)


def _engine(
    arguments: argparse.Namespace, state: Path, stack: contextlib.ExitStack
) -> RunningEngine | None:
    """The engine that was asked for, running until the stack is left."""
    if arguments.engine is None:
        return None
    program, model = program_at(arguments.engine_path), model_at(arguments.model)
    print(f"{ENGINE} loads {model.name} ... (Ctrl-C ends it)", file=sys.stderr)
    return stack.enter_context(running(program, model, state / f"{ENGINE}.log"))


def _serve_world(world: DemoWorld, state: Path | None) -> int:
    def announce_and_explain(lines: Sequence[str]) -> None:
        announce([*lines, what_to_try(_gateway_address(lines), world, state)])

    return serve_forever(
        DaemonSettings(
            config=world.config,
            catalogue=world.catalogue,
            announce=announce_and_explain,
            companions=tuple(neuron.serve for neuron in world.neurons),
        )
    )


def _taken(flag: str, address: str) -> str | None:
    """Why nothing can listen on a TCP address, and what to say instead."""
    if address.startswith("unix:") or "LISTEN_FDS" in os.environ:
        return None
    try:
        open_listener(address, unacknowledged_seconds=1).close()
    except ListenProblem as problem:
        return f"cortexd demo: {problem}.\nA free port is found with: {flag} 127.0.0.1:0"
    return None


def _gateway_address(lines: Sequence[str]) -> str:
    """From `listening gateway http://127.0.0.1:31313`, its last word."""
    return next(line for line in lines if line.startswith("listening gateway ")).split(" ", 2)[2]


def what_to_try(address: str, world: DemoWorld, state: Path | None) -> str:
    """The tour: lines to copy, each of which works as printed."""
    if address.startswith("unix:"):
        curl, url = f"curl --unix-socket {address.removeprefix('unix:')}", "http://localhost"
    else:
        curl, url = "curl", address
    parts = [
        _fleet(world),
        _ASK.format(curl=curl, url=url, key=BALANCE_KEY),
        _engine_tour(world.engine, curl=curl, url=url),
        _BUDGET.format(curl=curl, url=url, key=BALANCE_KEY),
        _SDK.format(url=url, key=BALANCE_KEY) if curl == "curl" else "",
        # Before the cap, which leaves the key nothing to ask with.
        _COLD.format(curl=curl, url=url, key=BALANCE_KEY, cold=COLD),
        _SWAP.format(displacing=DISPLACING, displaced=SMALL, neuron=DISPLACED_ON),
        _verbs(world.config.gateway.admin_socket),
        _CAP.format(
            curl=curl,
            url=url,
            key=BALANCE_KEY,
            rolling_key=ROLLING_KEY,
            cap=BALANCE_CAP_TOKENS,
            rolling_cap=ROLLING_CAP_TOKENS,
            seconds=ROLLING_SECONDS,
        ),
        _kill(world, state),
        "Ctrl-C ends the demo.",
    ]
    return "\n" + "\n".join(part for part in parts if part)


def _engine_tour(engine: RunningEngine | None, *, curl: str, url: str) -> str:
    if engine is None:
        return ""
    return _ENGINE.format(
        curl=curl,
        url=url,
        key=BALANCE_KEY,
        model=engine.model,
        pid=engine.pid,
        log=engine.log,
    )


def _verbs(admin_socket: str | None) -> str:
    if admin_socket is None:
        return ""
    command, socket = _this_command(), shlex.quote(admin_socket)
    return _VERBS.format(command=command, socket=socket, displaced=SMALL, neuron=DISPLACED_ON)


def _this_command() -> str:
    """How this very program was called, up to its verb, so that a line with another verb works."""
    called = sys.orig_argv
    if "demo" not in called:
        return "cortexd"
    return shlex.join(called[: called.index("demo")])


def _kill(world: DemoWorld, state: Path | None) -> str:
    if state is None:
        return _KILL
    grace_seconds = world.config.ledger.grace_seconds
    return _KILL_KEPT.format(pid=os.getpid(), state=state, grace_seconds=grace_seconds)


def _fleet(world: DemoWorld) -> str:
    rows = []
    for neuron in world.neurons:
        devices = neuron.machine.rack.devices
        cards = f"{len(devices)} x {devices[0].vram_total_mb // 1024} GB"
        rows.append(f"  {neuron.name:<8}{cards:<12}{', '.join(neuron.machine.rack.resident)}")
    if world.engine is not None:
        rows.append(f"and a real one, {ENGINE}:\n  {ENGINE_NEURON:<20}{world.engine.model}")
    names = ", ".join(f"{alias} = {model}" for alias, model in world.catalogue.aliases.items())
    return "Simulated neurons:\n" + "\n".join(rows) + f"\n  aliases: {names}\n"


_ASK = """\
Ask, and watch the answer stream in:
  {curl} -N {url}/v1/chat/completions \\
    -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "small", "stream": true,
         "messages": [{{"role": "user", "content": "What is a token?"}}]}}'
"""

_ENGINE = """\
Ask the real model. The ledger charges what the engine counted:
  {curl} -N {url}/v1/chat/completions \\
    -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{model}", "stream": true, "max_tokens": 100,
         "messages": [{{"role": "user", "content": "What is a token?"}}]}}'
The engine is process {pid}; what it says goes to
  {log}
"""

_BUDGET = """\
See what is left:
  {curl} {url}/v1/budget \\
    -H 'Authorization: Bearer {key}'
"""

_SDK = """\
The same with the openai package (pip install openai):
  from openai import OpenAI
  client = OpenAI(
      base_url="{url}/v1", api_key="{key}"
  )
  for chunk in client.chat.completions.create(
      model="small", stream=True,
      messages=[{{"role": "user", "content": "What is a budget?"}}],
  ):
      print(chunk.choices[0].delta.content or "", end="", flush=True)
"""

_COLD = """\
Ask for a model that is loaded nowhere. The stream begins at once, says every
two seconds that it is waiting, and goes on when the model is there:
  {curl} -N {url}/v1/chat/completions \\
    -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{cold}", "stream": true,
         "messages": [{{"role": "user", "content": "Are you awake?"}}]}}'
"""

_SWAP = """\
Then the same with {displacing}. Nothing has room for it as things are, so
{displaced} leaves {neuron} first, once its requests there have ended.
"""

_VERBS = """\
Watch that from another terminal, and have {displaced} put back:
  {command} models \\
    --socket {socket}
  {command} load {displaced} --neuron {neuron} \\
    --socket {socket}
"""

_CAP = """\
Reach the cap: {key} may spend {cap} tokens, ever. About ten
questions do it (200 is an answer, 429 a refusal):
  for i in $(seq 15); do
    {curl} -s -o /dev/null -w '%{{http_code}} ' \\
      {url}/v1/chat/completions \\
      -H 'Authorization: Bearer {key}' \\
      -H 'Content-Type: application/json' \\
      -d '{{"model": "small",
           "messages": [{{"role": "user", "content": "'$i'"}}]}}'
  done; echo
{rolling_key} may spend {rolling_cap} tokens in any {seconds} seconds: its refusals
carry a Retry-After, and waiting that long is enough.
"""

_KILL = """\
Budgets survive kill -9. To see that, start again with --state DIR, which keeps
the ledger in DIR/ledger; this one goes with the demo.
"""

_KILL_KEPT = """\
Budgets survive kill -9. Spend some, then:
  kill -9 {pid}
and start the demo again with --state {state}
The budget is still spent. An answer that was being written is charged in full
once its grace of {grace_seconds} seconds is over.
"""
