"""A simulated neuron: the whole neuron protocol on a real socket, with switches to misbehave.

`cortexd demo` runs three of them; tests use the same one. `bind` before Trio runs (the address
is then known), `serve` in a nursery. Everything a test changes or awaits is here: `switches`,
`counters`, `allow*`, `wait_for_*`.
"""

from collections.abc import Sequence
from urllib.parse import unquote

import msgspec
import trio

from cortexd.demo import control
from cortexd.demo.admission import AdmissionLimits
from cortexd.demo.chat import answer_chat
from cortexd.demo.completions import answer_completion
from cortexd.demo.counters import Counters
from cortexd.demo.embeddings import answer_embeddings
from cortexd.demo.errors import NeuronError, management_error
from cortexd.demo.hardware import Device, Rack, SimulatedModel
from cortexd.demo.http import Listening, Reply, Request, bind, serve_http
from cortexd.demo.loads import Loader, read_spec
from cortexd.demo.machine import Machine, default_devices, default_models
from cortexd.demo.media import answer_images, answer_rerank, answer_speech, answer_transcription
from cortexd.demo.messages import answer_message
from cortexd.demo.responses import answer_response
from cortexd.demo.switches import CHAT_PATH, INFERENCE_PATHS, BreakKind, Broken, Canned, Switches
from cortexd.demo.writing import break_before_head, breaks_before_head

_JSON = (b"content-type", b"application/json")
_MODEL_PREFIX = "/models/"
_ANSWERS = {
    CHAT_PATH: answer_chat,
    "/v1/completions": answer_completion,
    "/v1/responses": answer_response,
    "/v1/messages": answer_message,
    "/v1/embeddings": answer_embeddings,
    "/v1/rerank": answer_rerank,
    "/v1/images/generations": answer_images,
    "/v1/audio/transcriptions": answer_transcription,
    "/v1/audio/speech": answer_speech,
}


class SimulatedNeuron:
    """One neuron. Without arguments: a 24 GB card with the resident model `sim/small`.

    Models that do not fit their cards when the neuron starts raise DoesNotFit. With `served_log`,
    tokens really served are appended to that file as they happen.
    """

    def __init__(
        self,
        name: str = "sim",
        models: Sequence[SimulatedModel] | None = None,
        devices: Sequence[Device] | None = None,
        *,
        switches: Switches | None = None,
        admission: AdmissionLimits | None = None,
        served_log: str | None = None,
    ) -> None:
        rack = Rack(
            default_devices() if devices is None else devices,
            default_models() if models is None else models,
        )
        self.name = name
        self.switches = switches or Switches()
        self.counters = Counters(served_log)
        self.machine = Machine(
            name, rack, self.switches, self.counters, admission or AdmissionLimits()
        )
        self._loader = Loader(self.machine)
        self._listening: Listening | None = None
        self._address = ("", 0)
        self.restart()

    # Life.

    def bind(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens, so that `url` is known; nothing is answered before `serve`. Raises OSError."""
        self._listening = bind(host, port)
        self._address = self._listening.getsockname()[:2]

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; all connections are then closed.

        Binds to a free port if nobody did.
        """
        if self._listening is None:
            self.bind()
        listening, self._listening = self._listening, None
        assert listening is not None, "bind leaves a listening socket"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._loader.run, name=f"{self.name} loader")
            await nursery.start(
                serve_http, listening, self._answer, self._hung_up, name=f"{self.name} http"
            )
            task_status.started()

    def close(self) -> None:
        """Gives up an address that was bound and never served, and closes the served log."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.counters.served.close()

    def restart(self, *, empty: bool = False) -> None:
        """Starts over as a fresh process would: with the models resident at start, or with none.

        Counters stay; loads under way are lost.
        """
        self._loader.forget()
        known = self.machine.rack.known.values()
        self.machine.boot([] if empty else [model.id for model in known if model.resident])

    @property
    def port(self) -> int:
        """The TCP port, also after serving has ended."""
        return self._address[1]

    @property
    def url(self) -> str:
        """The base URL, as a configuration names it."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    # What tests permit and await.

    async def allow(self, tokens: int = 1) -> None:
        """With `switches.gated`: lets so many tokens out, over all replies.

        Does not wait for them.
        """
        for _ in range(tokens):
            self.machine.gates.tokens.release()
        await trio.lowlevel.checkpoint()

    async def allow_prefill(self, prompts: int = 1) -> None:
        """With `switches.gated_prefill`: lets so many prompts be read."""
        for _ in range(prompts):
            self.machine.gates.prefills.release()
        await trio.lowlevel.checkpoint()

    async def allow_load(self, loads: int = 1) -> None:
        """With `switches.gated_loads`: lets so many loads finish."""
        for _ in range(loads):
            self.machine.gates.loads.release()
        await trio.lowlevel.checkpoint()

    async def wait_for_hits(self, count: int) -> None:
        """Returns once so many chat requests have arrived in all."""
        await self.counters.chat_hits.wait_for(count)

    async def wait_for_path(self, path: str, count: int = 1) -> None:
        """Returns once so many requests on `path` (percent-encoded) have arrived in all."""
        while self.counters.hits[path] < count:
            await self.counters.arrived.wait_for(self.counters.arrived.count + 1)

    async def wait_for_hang_up(self, count: int = 1) -> None:
        """Returns once so many inference requests in all were given up, and have stopped."""
        await self.counters.hang_ups.wait_for(count)

    async def wait_for_tokens(self, count: int) -> None:
        """Returns once so many chat tokens in all have been handed to sockets (plain replies.

        Produced).
        """
        await self.counters.tokens.wait_for(count)

    @property
    def chat_hits(self) -> int:
        """Chat requests that arrived, whatever became of them."""
        return self.counters.chat_hits.count

    @property
    def hang_ups(self) -> int:
        """Inference requests that their client gave up."""
        return self.counters.hang_ups.count

    @property
    def in_flight(self) -> int:
        """Inference requests that are being answered, or kept waiting, now."""
        return self.counters.in_flight

    @property
    def seen(self) -> list[Request]:
        """The last thousand requests with headers and body, management calls too."""
        return list(self.counters.seen)

    # Answering.

    def _hung_up(self, request: Request) -> None:
        counters = self.counters
        (counters.hang_ups if _is_inference(request) else counters.polls_hung_up).add()

    async def _answer(self, request: Request, reply: Reply) -> None:
        counters = self.counters
        counters.arrive(request)
        reply.dribble = self.switches.dribble
        if not _is_inference(request):
            await self._answer_or_refuse(request, reply)
            return
        counters.in_flight += 1
        if request.path == CHAT_PATH:
            counters.chat_hits.add()
        try:
            await self._answer_or_refuse(request, reply)
        finally:
            counters.in_flight -= 1

    async def _answer_or_refuse(self, request: Request, reply: Reply) -> None:
        try:
            broken = self._fault(request)
            if broken is not None:
                await break_before_head(broken, reply)
                return
            await self._dispatch(request, reply)
        except NeuronError as refused:
            canned = refused.reply
            await reply.send(canned.status, canned.body, canned.headers)

    def _fault(self, request: Request) -> Broken | None:
        """The break that a switch demands before the head; a canned reply is raised."""
        fault = self.switches.fault_at(request.path)
        if isinstance(fault, Canned):
            raise NeuronError(fault)
        if fault is not None:
            return fault
        if not _is_inference(request):
            return None
        if self.switches.silent:
            return Broken(BreakKind.SILENCE)
        broken = self.switches.broken
        return broken if broken is not None and breaks_before_head(broken) else None

    async def _dispatch(self, request: Request, reply: Reply) -> None:
        match request.method, request.path:
            case "POST", path if path in _ANSWERS:
                await _ANSWERS[path](self.machine, request, reply)
            case "POST", "/models/load":
                await self._load(request, reply)
            case _:
                await reply.send(200, msgspec.json.encode(self._managed(request)), (_JSON,))

    async def _load(self, request: Request, reply: Reply) -> None:
        spec = read_spec(request.body)
        outcome: Canned | Broken
        if kind := self.switches.load_breaks.get(spec.bare_id):
            await self._loader.begin(spec)
            outcome = Broken(kind)
        else:
            outcome = await self._loader.load(spec)
        if isinstance(outcome, Broken):
            await break_before_head(outcome, reply)
        else:
            await reply.send(outcome.status, outcome.body, outcome.headers)

    def _managed(self, request: Request) -> object:
        machine = self.machine
        match request.method, request.path:
            case "GET", "/version":
                return control.version(machine)
            case "GET", "/discovery":
                return control.discovery(machine)
            case "GET", "/health":
                return control.health(machine)
            case "GET", "/models":
                return control.models(machine)
            case "GET", "/v1/models":
                return control.openai_models(machine)
            case "POST", "/models/unload":
                return control.unload(machine, request.body)
            case "GET", path if path.startswith(_MODEL_PREFIX):
                model_id, _, question = path.removeprefix(_MODEL_PREFIX).rpartition("/")
                if question == "endpoint":
                    return control.endpoint(machine, unquote(model_id), self.port)
                if question == "capabilities":
                    return control.capabilities(machine, unquote(model_id))
        raise NeuronError(
            management_error(404, f"no such endpoint: {request.method} {request.path}")
        )


def _is_inference(request: Request) -> bool:
    return request.path in INFERENCE_PATHS
