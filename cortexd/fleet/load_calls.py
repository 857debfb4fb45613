"""What a neuron is told to load and to unload, and what its answer means.

Owns the wire shapes of the neuron protocol's write calls, and the words for what went wrong with
one. A neuron's own text is cut to size and made fit for one line of a log before it is repeated.
Refuses to know how a call is made (neuron.py) and what follows from a failure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from cortexd.fleet.reports import ModelId

HARNESS_DEFAULT: Final = "candle"

TEXT_CHARACTERS_MAX: Final = 300
"""So much of a neuron's own text is repeated."""

_PERMANENT_STATUS = 422
_KINDS = {
    "repo_fetch_failed": "its weights cannot be fetched",
    "empty_repo": "there are no weights where they should come from",
    "tp_requires_safetensors": "only safetensors weights can be split over several cards",
    "quant_not_found": "there are no weights in the wanted quant",
}


class LoadSpec(msgspec.Struct, frozen=True):
    """What a neuron is asked to load, as the catalogue and the plan have it.

    `source`: where the weights come from, written before the id. `devices`: the cards to use, none
    for the neuron's own choice. `tensor_parallel`: over how many cards the model is split. None:
    the neuron's default, which for `harness` is always "candle".
    """

    model: ModelId
    source: str | None = None
    harness: str | None = None
    quant: str | None = None
    tensor_parallel: int | None = None
    devices: tuple[int, ...] = ()


class LoadFailed(Exception):
    """A model was not loaded; `reason` is fit for a log and for the operator.

    `permanent`: it will not work the next time either, as when there are no such weights.
    `cuda_unavailable`: no load will work there until that machine has been rebooted.
    """

    def __init__(
        self, reason: str, *, permanent: bool = False, cuda_unavailable: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.cuda_unavailable = cuda_unavailable


class UnloadFailed(Exception):
    """A model may still be loaded; `reason` is fit for a log and for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Load(msgspec.Struct, frozen=True, omit_defaults=True):
    model_id: str
    harness: str  # no default, so that it is always said
    quant: str | None = None
    tensor_parallel: int | None = None
    devices: tuple[int, ...] = ()


class _Unload(msgspec.Struct, frozen=True):
    model_id: str


class _Answer(msgspec.Struct, frozen=True):
    """All that an answer may hold, of whatever type; what is missing is None."""

    status: object = None
    error: object = None
    code: object = None
    capabilities: object = None

    @property
    def kind(self) -> str:
        """The kind of a permanent failure; empty when it names none."""
        kind = self.error.get("kind") if isinstance(self.error, dict) else None
        return shown(kind) if isinstance(kind, str) else ""

    @property
    def text(self) -> str:
        """What the neuron says for people; empty when it says nothing."""
        said = self.error
        if isinstance(said, dict):
            said = said.get("message") or said.get("detail")
        return shown(said) if isinstance(said, str) else ""


def load_body(spec: LoadSpec) -> bytes:
    """The body of POST /models/load."""
    return msgspec.json.encode(
        _Load(
            f"{spec.source}:{spec.model}" if spec.source else spec.model,
            spec.harness or HARNESS_DEFAULT,
            spec.quant,
            spec.tensor_parallel,
            spec.devices,
        )
    )


def unload_body(model: ModelId) -> bytes:
    """The body of POST /models/unload."""
    return msgspec.json.encode(_Unload(model))


def load_failure(status: int, body: bytes) -> LoadFailed | None:
    """What an answer to a load says went wrong; None: the model is resident."""
    answer = _read(body)
    if status == 200:
        return None if answer.status == "loaded" else LoadFailed(_unclear("load", answer))
    if status == 400 and "already loaded" in answer.text.lower():
        return None
    if status == 503 and answer.code == "cuda_unavailable":
        reason = _with("it cannot use CUDA until that machine is rebooted", answer.text)
        return LoadFailed(reason, cuda_unavailable=True)
    if status == _PERMANENT_STATUS:
        kind = answer.kind
        words = f"{_KINDS.get(kind, 'it cannot be loaded')} ({kind or status})"
        return LoadFailed(_with(words, answer.text), permanent=True)
    return LoadFailed(_refused("load", status, answer))


def unload_failure(status: int, body: bytes) -> UnloadFailed | None:
    """What an answer to an unload says went wrong; None: the model is not resident any more."""
    answer = _read(body)
    if status == 200:
        return None if answer.status == "unloaded" else UnloadFailed(_unclear("unload", answer))
    if status == 404 and "not loaded" in answer.text.lower():
        return None
    return UnloadFailed(_refused("unload", status, answer))


def read_capabilities(status: int, body: bytes) -> tuple[str, ...] | None:
    """What an answer says that a model can do; None: that neuron cannot tell."""
    said = _read(body).capabilities
    if status != 200 or not isinstance(said, list):
        return None
    texts = tuple(each for each in said if isinstance(each, str))
    return texts if len(texts) == len(said) else None


def shown(text: str) -> str:
    """A neuron's text as it may stand between quotes in one line of a log, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.replace("\\", "/").replace('"', "'")
    if len(line) <= TEXT_CHARACTERS_MAX:
        return line
    return line[: TEXT_CHARACTERS_MAX - 3] + "..."


def _read(body: bytes) -> _Answer:
    """An answer that is no JSON object says nothing."""
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Answer()


def _refused(call: str, status: int, answer: _Answer) -> str:
    return _with(f"/models/{call} answered with status {status}", answer.text)


def _unclear(call: str, answer: _Answer) -> str:
    said = shown(answer.status) if isinstance(answer.status, str) else ""
    return _with(f"/models/{call} answered with status 200 and not that it is done", said)


def _with(words: str, text: str) -> str:
    return f"{words}: {text}" if text else words
