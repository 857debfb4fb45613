"""All that can be turned on a running simulated neuron: pace, honesty, how it breaks. Pure.

The default is a neuron that behaves: honest usage, complete streams, no waiting. Tests and the
demo world change fields of a live `Switches`; a reply reads them as it goes, so a change also
reaches replies under way.
"""

import enum
from dataclasses import dataclass, field

import msgspec

CHAT_PATH = "/v1/chat/completions"
EMBEDDINGS_PATH = "/v1/embeddings"
INFERENCE_PATHS = (
    CHAT_PATH,
    EMBEDDINGS_PATH,
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/rerank",
    "/v1/images/generations",
    "/v1/audio/transcriptions",
    "/v1/audio/speech",
)
EVERY_PATH = "*"


class UsageLie(enum.Enum):
    """What the usage object of a reply says in place of the truth."""

    HONEST = "honest"
    ABSENT = "absent"
    NULL = "null"
    ZERO = "zero"
    NEGATIVE = "negative"
    HUGE = "huge"
    FLOAT = "float"
    STRING = "string"
    NOT_A_NUMBER = "nan"
    BOOLEAN = "bool"
    LOW = "low"
    """Half of the completion tokens that were really sent."""


class BreakKind(enum.Enum):
    """How a reply goes wrong."""

    RESET = "reset"
    """The connection is reset (RST)."""
    EOF = "eof"
    """The connection is closed (FIN) in the middle of the body."""
    END = "end"
    """The stream ends as HTTP wants it, but without finish_reason, usage and [DONE]."""
    ERROR_FRAME = "error_frame"
    """An error object as the last event of the stream."""
    ERROR_FRAME_THEN_DONE = "error_frame_then_done"
    """The same, then [DONE], as vLLM does it."""
    GARBAGE = "garbage"
    """Bytes that are no event (before the head: no HTTP), then the end of the body."""
    SILENCE = "silence"
    """Nothing more, on a connection that stays open."""


class Broken(msgspec.Struct, frozen=True):
    """A reply breaks after so many tokens (fewer where the reply is shorter).

    None: before its first byte.
    """

    kind: BreakKind
    after_tokens: int | None = None
    garbage: bytes = b"proxy error: Failed to read connection\n"


class Canned(msgspec.Struct, frozen=True):
    """A whole reply, given word for word in place of the real one."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)


@dataclass
class Switches:
    """The switches of one neuron.

    Seconds are real time; see `gated` for tests that must not wait.
    """

    # Pace.
    prefill_seconds: float = 0.0
    token_seconds: float = 0.0
    comment_seconds: float = 1.0
    """Between two SSE comments while a streamed prompt is being read."""
    load_seconds: float | None = None
    """Overrides every model's own load time."""
    gated: bool = False
    """Each token waits for `SimulatedNeuron.allow`."""
    gated_prefill: bool = False
    """Each prompt waits for `SimulatedNeuron.allow_prefill`.

    No head is sent for a plain reply meanwhile.
    """
    gated_loads: bool = False
    """Each load waits for `SimulatedNeuron.allow_load`."""
    dribble: bool = False
    """Replies are written byte by byte."""
    head_with_first_token: bool = False
    """A stream's head waits for the first token, as llama-server does.

    There are no comments then.
    """

    # How much is said, and in what shape.
    natural_tokens: tuple[int, int] = (10, 60)
    """Shortest and longest reply when nothing limits it; which one, the prompt decides."""
    reply_tokens: int | None = None
    """Every reply would have this many tokens; None: a natural length."""
    ignore_max_tokens: bool = False
    tokens_per_chunk: int = 1
    fixed_usage: tuple[int, int] | None = None
    """Prompt and completion tokens of every request.

    Also what is really served, unless max_tokens is less.
    """
    usage: UsageLie | dict[str, object] = UsageLie.HONEST
    """A lie from the list, or a usage object to be sent word for word."""
    usage_only_when_asked: bool = False
    """The usage chunk only with stream_options.include_usage, as OpenAI has it.

    A neuron always sends it.
    """
    usage_on_finish_chunk: bool = False
    no_finish_reason: bool = False
    no_done: bool = False
    numbered_events: bool = True
    """Events of a response have a sequence_number; llama-server leaves it out."""
    float_vectors: bool = False
    """Embeddings come as numbers, whatever was asked for, as from most engines."""
    line_end: bytes = b"\n"
    until_close: bool = False
    """Streams have no chunked framing: they end with the connection."""
    plain_chunked: bool = False
    """Plain replies are sent in chunks, without a length."""

    # How it breaks.
    silent: bool = False
    """Inference requests are accepted and never answered; the management calls still work."""
    broken: Broken | None = None
    """How every inference reply goes wrong."""
    faults: dict[str, Canned | Broken] = field(default_factory=dict)
    """Path (percent-encoded, or "*" for all) -> what happens there, whatever was asked."""
    load_failures: dict[str, str | Canned | Broken] = field(default_factory=dict)
    """Model -> how its loads fail, all that wait for one alike.

    The kind of a permanent failure, such as "empty_repo"; a whole reply; or a broken connection.
    """
    late_load_failures: bool = False
    """Loads fail only once they have taken their time, and their memory meanwhile."""
    load_breaks: dict[str, BreakKind] = field(default_factory=dict)
    """Model -> what becomes of the connection of whoever asks for its load.

    Right after the load has begun, which goes on; SILENCE: nobody ever hears of its end.
    """
    show_loading: bool = False
    """A model that is being loaded is in /models, with the status "loading"."""
    cuda_unavailable: str | None = None
    """The reason why every load fails until a reboot."""
    draining: bool = False
    pre_warming: bool = False

    def refuse(
        self,
        status: int,
        body: bytes = b'{"error":{"message":"refused","type":"api_error","code":null}}',
        *,
        retry_after: str | None = None,
        path: str = CHAT_PATH,
    ) -> None:
        """Makes every request on `path` end with this status and body."""
        headers = [(b"content-type", b"application/json")]
        if retry_after is not None:
            headers.append((b"retry-after", retry_after.encode("latin-1")))
        self.faults[path] = Canned(status, body, tuple(headers))

    def fault_at(self, path: str) -> Canned | Broken | None:
        """What is to go wrong on this path."""
        return self.faults.get(path) or self.faults.get(EVERY_PATH)
