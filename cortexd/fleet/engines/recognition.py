"""Which kind of neuron a server is, by what it answers on the paths that only some kinds have.

Owns the questions and what their answers prove; surest first, because engines imitate each other's
paths. A guess is a hint for the operator and never used by the daemon: the kind is configured.
Refuses to know how questions are asked (cli/doctor.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cortexd.config.schema import NeuronKind

QUESTIONS = (
    "/v1/models",
    "/discovery",
    "/.well-known/serviceinfo",
    "/props",
    "/running",
    "/api/v1/models",
    "/get_model_info",
    "/api/version",
    "/v1/system/info",
)
"""Paths that cost nothing to ask; none of them loads, wakes or generates."""


class Told(msgspec.Struct, frozen=True):
    """An answer to a question: status, and the decoded body, None if that is no JSON."""

    status: int
    body: object = None


class Recognized(msgspec.Struct, frozen=True):
    """What a server is and how that shows; `kind` None: nothing that cortexd knows."""

    kind: NeuronKind | None
    why: str


Answers = Mapping[str, Told]


def recognize(answers: Answers) -> Recognized:
    """Judge a server by its answers; paths that it did not answer are not among them."""
    for kind, shows, why in _SIGNS:
        if shows(answers):
            return Recognized(kind, why)
    refused = [path for path, told in answers.items() if told.status in (401, 403)]
    if refused:
        return Recognized(None, f"it wants a key: {', '.join(refused)}")
    if answers:
        return Recognized(None, "it answers, and has no list of models under /v1/models")
    return Recognized(None, "no whole answer came from there")


def _fields(answers: Answers, path: str) -> dict[str, object]:
    """The object that a path answered with; empty where there is none."""
    told = answers.get(path)
    if told is None or told.status != 200 or not isinstance(told.body, dict):
        return {}
    return told.body


def _entries(answers: Answers) -> list[dict[str, object]]:
    data = _fields(answers, "/v1/models").get("data")
    return [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []


def _owned_by(answers: Answers, *owners: str) -> bool:
    return any(entry.get("owned_by") in owners for entry in _entries(answers))


def _is_tabby(answers: Answers) -> bool:
    software = _fields(answers, "/.well-known/serviceinfo").get("software")
    name = software.get("name") if isinstance(software, dict) else None
    return isinstance(name, str) and "tabby" in name.lower()


def _is_router(answers: Answers) -> bool:
    if _fields(answers, "/props").get("role") == "router":
        return True
    with_state = [entry for entry in _entries(answers) if isinstance(entry.get("status"), dict)]
    return bool(with_state) and _owned_by(answers, "llamacpp")


def _is_mistralrs(answers: Answers) -> bool:
    with_state = [entry for entry in _entries(answers) if isinstance(entry.get("status"), str)]
    return bool(_fields(answers, "/v1/system/info")) or bool(with_state)


def _is_lmstudio(answers: Answers) -> bool:
    models = _fields(answers, "/api/v1/models").get("models")
    keyed = [each for each in models if isinstance(each, dict)] if isinstance(models, list) else []
    return any("loaded_instances" in each for each in keyed)


def _lists_models(answers: Answers) -> bool:
    return isinstance(_fields(answers, "/v1/models").get("data"), list)


_SIGNS: tuple[tuple[NeuronKind, Callable[[Answers], bool], str], ...] = (
    ("neuron", lambda a: "harnesses" in _fields(a, "/discovery"), "/discovery names its harnesses"),
    ("tabby", _is_tabby, "/.well-known/serviceinfo names it"),
    ("llama-router", _is_router, "/props or the states in its list tell that it is a router"),
    (
        "llama-server",
        lambda a: "default_generation_settings" in _fields(a, "/props"),
        "/props has llama.cpp's settings",
    ),
    ("llama-swap", lambda a: "running" in _fields(a, "/running"), "/running tells what runs"),
    ("lmstudio", _is_lmstudio, "/api/v1/models tells of loaded instances"),
    (
        "sglang",
        lambda a: "model_path" in _fields(a, "/get_model_info") or _owned_by(a, "sglang"),
        "/get_model_info or its list tells",
    ),
    ("vllm", lambda a: _owned_by(a, "vllm"), "its models are owned by vllm"),
    ("ollama", lambda a: "version" in _fields(a, "/api/version"), "/api/version answers"),
    ("mistralrs", _is_mistralrs, "/v1/system/info or the states in its list tell"),
    ("openai", _lists_models, "it lists models, and shows nothing of a kind that is known"),
)
