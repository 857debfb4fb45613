"""`cortexd doctor URL`: what is behind an address, and how it is written into the configuration.

Owns the questions' way out and the wording of the findings. Generates nothing, loads nothing and
needs no daemon. What a server is, is judged by `fleet/engines/recognition.py`.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from urllib.parse import urlsplit

import msgspec
import trio

from cortexd.cli.printable import printable
from cortexd.config.addresses import AddressFault, parse_endpoint
from cortexd.config.convert import convert
from cortexd.config.files import read_secret
from cortexd.config.problems import Report
from cortexd.config.schema import Neuron, NeuronKind, Secret
from cortexd.deadlines import watched_deadlines
from cortexd.fleet.addresses import address_of, without_version_path
from cortexd.fleet.engines.abilities import loads
from cortexd.fleet.engines.controls import control_of
from cortexd.fleet.engines.recognition import QUESTIONS, Recognized, Told, recognize
from cortexd.fleet.link import LinkBroken, connect
from cortexd.fleet.neuron import Calls, NoAnswer, PollFailed
from cortexd.fleet.pool import Pool
from cortexd.fleet.view import NeuronView, before_the_first_poll, fold, status_of

CONNECT_SECONDS = 5
QUESTION_SECONDS = 3
POLL_SECONDS = 10

_FLAGS = {"name": "--name", "api_key.file": "--api-key-file"}

NOT_TRIED = "whether requests work: to find out would cost tokens"


class FoundModel(msgspec.Struct, frozen=True):
    """A model there; `context` and `max_in_flight` None: it does not say."""

    id: str
    status: str
    context: int | None = None
    max_in_flight: int | None = None


class Findings(msgspec.Struct, frozen=True):
    """What was found out, and what could not be."""

    url: str
    kind: NeuronKind | None
    why: str
    models: tuple[FoundModel, ...] = ()
    unknown: tuple[str, ...] = ()
    neuron: Mapping[str, object] | None = None


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="find out what kind of neuron answers at an address",
        description="Ask a server what it is and print how to configure it. Nothing is loaded or "
        "generated. Exit code 1: nothing there that cortexd knows.",
    )
    parser.add_argument("url", metavar="URL", help="as in neurons[].endpoint")
    parser.add_argument("--name", help="what to call it (default: after its host)")
    parser.add_argument("--api-key-file", metavar="FILE", help="the key that it wants, in a file")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and print; 1 where nothing is found, 2 where there is nothing to ask."""
    try:
        url = parse_endpoint(without_version_path(arguments.url))
    except AddressFault as fault:
        print(f"cortexd doctor: {fault.what}; {fault.hint}", file=sys.stderr)
        return 2
    written: dict[str, object] = {"name": arguments.name, "endpoint": url}
    if arguments.name is None:
        written["name"] = _name(urlsplit(url).hostname or "")
    if arguments.api_key_file is not None:
        written["api_key"] = {"file": os.path.abspath(arguments.api_key_file)}
    report = Report("")
    neuron = convert(Neuron, written, report, read_secret)
    for problem in report.problems:
        flag = _FLAGS.get(problem.where, problem.where)
        hint = f"; {problem.hint}" if problem.hint else ""
        print(f"cortexd doctor: {flag}: {problem.what}{hint}", file=sys.stderr)
    if report.problems:
        return 2
    findings = trio.run(examine, neuron, written)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        print(_told(findings))
    return 0 if findings.kind is not None else 1


async def examine(
    asked: Neuron, written: Mapping[str, object], *, question_seconds: float = QUESTION_SECONDS
) -> Findings:
    """Ask what it is, then what it has, in its own words.

    `written`: what the configuration will have, but for the kind; `question_seconds` is how long
    each question may take. A server that does not answer is a finding, too. Checkpoints.
    """
    url = asked.endpoint
    absent = await _why_nobody(url)
    if absent is not None:
        return Findings(url, None, f"nothing answers there ({absent})")
    async with watched_deadlines() as deadlines, aclosing(Pool(deadlines, CONNECT_SECONDS)) as pool:
        answers, unheard = await _answers(url, asked.api_key, pool, question_seconds)
        recognized = recognize(answers)
        if recognized.kind is None:
            return Findings(url, None, "; ".join((recognized.why, *unheard[:1])))
        written = {**written, "kind": recognized.kind}
        neuron = msgspec.structs.replace(asked, kind=recognized.kind)
        control = control_of(neuron, pool, timeout_seconds=POLL_SECONDS)
        try:
            (before,) = before_the_first_poll([neuron]).neurons.values()
            view = fold(before, await control.poll())
        except PollFailed as failed:
            unknown = (f"what it has: {failed.reason}", NOT_TRIED)
            return Findings(url, recognized.kind, recognized.why, (), unknown, written)
        finally:
            await control.aclose()
        return _found(url, recognized, view, written)


async def _why_nobody(url: str) -> str | None:
    """Why no connection comes about there, TLS aside; None: one does."""
    plain = msgspec.structs.replace(address_of(url), secure=False)
    try:
        with trio.fail_after(CONNECT_SECONDS):
            link = await connect(plain, None)
    except LinkBroken as broken:
        return broken.reason
    except trio.TooSlowError:
        return f"no connection within {CONNECT_SECONDS} s"
    link.close()
    return None


async def _answers(
    url: str, key: Secret | None, pool: Pool, question_seconds: float
) -> tuple[dict[str, Told], tuple[str, ...]]:
    """One answer after the other: a small server is not to be stormed. And why others did not come
    whole.
    """
    answers: dict[str, Told] = {}
    unheard: list[str] = []
    calls = Calls(url, key, pool)
    try:
        for path in QUESTIONS:
            try:
                with trio.fail_after(question_seconds):
                    status, body = await calls.ask("GET", path)
            except trio.TooSlowError:
                unheard.append(f"{path}: no whole answer within {question_seconds:g} s")
            except NoAnswer as none:
                unheard.append(f"{path}: {none.reason}")
                if not answers:
                    break  # the other paths would tell no more
            else:
                answers[path] = Told(status, _decoded(body))
    finally:
        await calls.aclose()
    return answers, tuple(unheard)


def _decoded(body: bytes) -> object:
    try:
        decoded: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return decoded


def _found(
    url: str, recognized: Recognized, view: NeuronView, written: Mapping[str, object]
) -> Findings:
    models = tuple(
        FoundModel(each.id, each.status.value, each.limit.context, each.load.max_in_flight or None)
        for each in view.models.values()
    )
    return Findings(
        url, recognized.kind, recognized.why, models, _unknown(view.kind, models), written
    )


def _unknown(kind: NeuronKind, models: Sequence[FoundModel]) -> tuple[str, ...]:
    """What the operator may want to say, because the server does not."""
    loaded = [each for each in models if status_of(each.status).resident]
    unknown = []
    if not models:
        unknown.append("which models it has: it lists none")
    if any(each.context is None for each in loaded):
        unknown.append("the context of its models: write limit.context into the catalogue")
    elif not loaded:
        unknown.append("the context of its models: it is told once one is loaded")
    if all(each.max_in_flight is None for each in loaded):
        unknown.append("how many requests it takes at once: set max_in_flight")
    if kind == "openai":
        unknown.append("how busy it is, and how to load a model")
    return (*unknown, NOT_TRIED)


def _told(findings: Findings) -> str:
    """The findings for people, with what is to be pasted last."""
    if findings.kind is None:
        return f"{findings.url} is no neuron: {findings.why}."
    lines = [f"{findings.url} is of kind {findings.kind}: {findings.why}."]
    lines += ["", "models:"] if findings.models else []
    for each in findings.models:
        context = f"context {each.context}" if each.context else "context not known"
        at_once = f", {each.max_in_flight} at once" if each.max_in_flight else ""
        lines.append(f"  {_quoted(each.id)}  {each.status}, {context}{at_once}")
    lines += ["", "not found out:", *(f"  - {each}" for each in findings.unknown)]
    lines += ["", "for the configuration:", "", "neurons:", f"  - {_flow(findings.neuron or {})}"]
    if loads(findings.kind) and findings.models:
        lines += ["", "for the catalogue, to have them loaded when they are asked for:", ""]
        lines += ["models:", *(f"  - {_flow({'id': each.id})}" for each in findings.models)]
    return "\n".join(lines)


def _flow(mapping: Mapping[str, object]) -> str:
    """A mapping as YAML on one line; JSON's texts are YAML's."""
    parts = [
        f"{name}: {_flow(value) if isinstance(value, Mapping) else _quoted(value)}"
        for name, value in mapping.items()
    ]
    return f"{{{', '.join(parts)}}}"


def _quoted(value: object) -> str:
    """A server's own word, safe for a terminal: JSON escapes what moves the cursor."""
    return printable(msgspec.json.encode(value).decode())


def _name(host: str) -> str:
    """The name of a neuron after its host."""
    label = host if re.fullmatch(r"[\d.:]+", host) else host.partition(".")[0]
    return re.sub(r"[^a-z0-9-]+", "-", label.lower()).strip("-") or "neuron"
