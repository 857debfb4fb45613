"""What an operator can say: the frozen structs of cortexd.yaml and of the catalogue.

Owns every setting's name, type and default, in one place; the ranges are in ranges.py. Knows
nothing of YAML, files or the environment (config/load.py), nor of rules between settings
(config/check.py). Durations are seconds, sizes are bytes, amounts are tokens; the unit ends the
name.
"""

import hashlib
import hmac
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from cortexd.config.ranges import (
    Bytes,
    BytesOrOff,
    Count,
    CountOrOff,
    DaysOrOff,
    FieldName,
    HardwareAddress,
    Megabytes,
    ModelName,
    Name,
    Origin,
    PositiveTokens,
    Price,
    Priority,
    Requests,
    Seconds,
    SecondsOrOff,
    Sha256,
    SocketPath,
    Text,
    TimeZone,
    Tokens,
    Weight,
    WindowSeconds,
)


class Secret:
    """A text that must not reach a log, a traceback or a report: only `reveal()` gives it away.

    Not a msgspec struct on purpose: encoding a configuration that still holds one fails instead of
    leaking it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that has to send or hash it."""
        return self._text

    def sha256(self) -> str:
        """The text's SHA-256, 64 lower-case hexadecimal digits."""
        return hashlib.sha256(self._text.encode("utf-8", "surrogatepass")).hexdigest()

    def __repr__(self) -> str:
        return "Secret(not shown)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        ours, theirs = (each.encode("utf-8", "surrogatepass") for each in (self._text, other._text))
        return hmac.compare_digest(ours, theirs)

    def __hash__(self) -> int:
        return hash(self._text)


class _Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """What all structs here share: no change after loading, no setting that nobody reads."""


class Limited(_Strict, frozen=True):
    """Who may spend how much. A limit of it that is there may not be empty: nothing would hold."""


class Tls(_Strict, frozen=True):
    """Files in PEM format; after loading, absolute paths that could be read."""

    certificate: Text
    private_key: Text


class Gateway(_Strict, frozen=True):
    """The listeners, and what one client may take of memory, connections and patience.

    After loading, `admin_socket` is an absolute path, or None where there shall be none.
    """

    listen: Text = "127.0.0.1:31313"
    metrics_listen: Text = "127.0.0.1:31314"
    admin_socket: SocketPath | None = None
    tls: Tls | None = None
    neuron_ca: Text | None = None  # PEM; trusted for neurons beside the system's; absolute then
    body_bytes_max: Bytes = 33_554_432
    bodies_bytes_max: Bytes = 268_435_456  # of all requests in memory together
    head_bytes_max: Bytes = 65_536
    connections_max: Count = 1_000
    head_seconds: Seconds = 10
    body_seconds: Seconds = 60
    idle_seconds: Seconds = 75
    send_stall_seconds: Seconds = 30
    grace_seconds: SecondsOrOff = 30
    connect_seconds: Seconds = 3
    first_byte_seconds: Seconds = 600
    between_bytes_seconds: Seconds = 120
    forward_fields: tuple[FieldName, ...] = ()  # extra body fields let through to neurons
    exact_counts: bool = True  # a prompt that does not fit by its bytes is counted by its engine
    stream_pump: bool = True  # one task passes all streams on, in place of one for each
    cors_origins: tuple[Origin, ...] = ("*",)  # whose pages a browser may let call


class Eviction(_Strict, frozen=True):
    """Who makes room for whom when a model has to be loaded.

    `drain_seconds`: so long the requests of a model may go on once it has to leave.
    """

    strategy: Literal["lru", "priority"] = "lru"
    defrag_after_cycles: CountOrOff = 0
    min_residency_seconds: SecondsOrOff = 60
    max_swap_wait_seconds: SecondsOrOff = 30
    drain_seconds: SecondsOrOff = 120


NeuronKind = Literal[
    "neuron",
    "llama-server",
    "llama-router",
    "llama-swap",
    "vllm",
    "sglang",
    "ollama",
    "lmstudio",
    "mistralrs",
    "tabby",
    "openai",
]
"""What a neuron is, and so what it is asked and told; `openai` is any server with that API."""


class Neuron(_Strict, frozen=True):
    """One server that runs models.

    `max_in_flight`: requests of one model that it is given at once; None: what it reports, and
    where it reports nothing, any number. `mac` and `wake_broadcast`: how a machine that sleeps is
    woken, by a magic packet to that address. `anthropic`: it speaks Anthropic's messages, and gets
    them untranslated. After loading, `endpoint` has no trailing slash, and
    `mac` is in lower case with colons.
    """

    name: Name
    endpoint: Text
    kind: NeuronKind = "neuron"
    api_key: Secret | None = None
    max_in_flight: Count | None = None
    anthropic: bool = False
    mac: HardwareAddress | None = None
    wake_broadcast: Text = "255.255.255.255:9"


class Polling(_Strict, frozen=True):
    """How often a neuron is asked how it is, and how many misses in a row it may have."""

    interval_seconds: Seconds = 5
    timeout_seconds: Seconds = 5
    misses_to_unhealthy: Count = 3


class Waiting(_Strict, frozen=True):
    """What a request may wait for, how long, and with how many others.

    `queue_seconds`: for its turn at a loaded model; `load_seconds`: for a model to be loaded;
    `plain_wait_seconds`: in all, where the client sees nothing of it, because it asked for a plain
    answer. `requests_max` is per model. `quantum_tokens`: what a key of weight 1 may take in its
    turn. A client that asked for a stream hears of us every `heartbeat_seconds`.
    """

    queue_seconds: Seconds = 120
    load_seconds: Seconds = 1_800
    plain_wait_seconds: Seconds = 60
    requests_max: Count = 1_000
    quantum_tokens: PositiveTokens = 4_096
    heartbeat_seconds: Seconds = 5


class BalanceWindow(_Strict, frozen=True, tag_field="kind", tag="balance"):
    """A cap that is spent once and does not come back by itself."""


class RollingWindow(_Strict, frozen=True, tag_field="kind", tag="rolling"):
    """A cap on what is spent within any stretch of this length."""

    seconds: WindowSeconds

    @property
    def window_ms(self) -> int:
        """The length in whole milliseconds, at least 1."""
        return max(1, round(self.seconds * 1000))


class FixedWindow(_Strict, frozen=True, tag_field="kind", tag="fixed"):
    """A cap on what is spent between two multiples of this length, counted from the epoch."""

    seconds: WindowSeconds

    @property
    def window_ms(self) -> int:
        """The length in whole milliseconds, at least 1."""
        return max(1, round(self.seconds * 1000))


class CalendarWindow(_Strict, frozen=True, tag_field="kind", tag="calendar"):
    """A cap on what is spent in a day, a week from Monday, or a month of a time zone."""

    period: Literal["day", "week", "month"]
    time_zone: TimeZone = "UTC"


Window = BalanceWindow | RollingWindow | FixedWindow | CalendarWindow


class TokenCap(_Strict, frozen=True):
    """One of several caps on tokens."""

    hard_cap: Tokens
    window: Window = BalanceWindow()


class RequestCap(_Strict, frozen=True):
    """A cap on how many requests are taken. The window has no default: a balance of requests is
    rarely meant.
    """

    count: Requests
    window: Annotated[Window, Meta(description="a mapping, as in {kind: rolling, seconds: 60}")]


class Account(Limited, frozen=True):
    """Caps that all keys of an account share. Without any: uncapped, still metered.

    `hard_cap` with its `window` is short for one item of `caps`. `shadow`: the account's own caps
    count, and refuse nothing.
    """

    account_id: Name
    hard_cap: Tokens | None = None
    window: Window = BalanceWindow()
    caps: tuple[TokenCap, ...] = ()
    max_requests: tuple[RequestCap, ...] = ()
    max_in_flight: Count | None = None
    shadow: bool = False

    @property
    def token_caps(self) -> tuple[TokenCap, ...]:
        """Every cap on tokens, however it was written."""
        return _token_caps(self.hard_cap, self.window, self.caps)


class Key(Limited, frozen=True):
    """An API key and its own caps. Without any: uncapped, still metered.

    `over_cap: clamp` lowers the output of a request that does not fit, down to `min_output` tokens.
    `models` None: all of them. `weight`: its share where keys wait for one model. The rest as in
    `Account`. After loading: `key` is None, `key_sha256` is the lower-case SHA-256 of the key,
    `key_id` is filled.
    """

    account_id: Name
    key_id: Name = ""  # empty: the account_id
    key: Secret | None = None
    key_sha256: Sha256 = ""  # empty: computed from `key`
    hard_cap: Tokens | None = None
    window: Window = BalanceWindow()
    caps: tuple[TokenCap, ...] = ()
    max_requests: tuple[RequestCap, ...] = ()
    max_in_flight: Count | None = None
    over_cap: Literal["refuse", "clamp"] = "refuse"
    min_output: PositiveTokens = 256
    models: tuple[ModelName, ...] | None = None
    shadow: bool = False
    weight: Weight = 1

    @property
    def token_caps(self) -> tuple[TokenCap, ...]:
        """Every cap on tokens, however it was written."""
        return _token_caps(self.hard_cap, self.window, self.caps)


def _token_caps(
    hard_cap: int | None, window: Window, caps: tuple[TokenCap, ...]
) -> tuple[TokenCap, ...]:
    return caps if hard_cap is None else (TokenCap(hard_cap, window), *caps)


class Entitlements(_Strict, frozen=True):
    """Who may spend. After loading, `require_auth` is a bool (default: whether there is a key)."""

    require_auth: bool | None = None
    accounts: tuple[Account, ...] = ()
    keys: tuple[Key, ...] = ()


class Ledger(_Strict, frozen=True):
    """Where spending is written down. After loading, `directory` is an absolute path.

    What is older than `retention_days`, or goes beyond `retention_bytes`, is history that no
    balance needs; it is deleted. `when_unavailable`: who is served while nothing can be written.
    """

    directory: Text | None = None
    grace_seconds: SecondsOrOff = 30
    on_reboot: Literal["wall", "freeze"] = "wall"
    retention_days: DaysOrOff = 90  # 0: for ever
    retention_bytes: BytesOrOff = 2_147_483_648  # 0: no limit
    when_unavailable: Literal["refuse", "serve_uncapped"] = "refuse"


class Config(_Strict, frozen=True):
    """The whole of cortexd.yaml. After loading, `models_config` is an absolute path or None."""

    gateway: Gateway = Gateway()
    eviction: Eviction = Eviction()
    neurons: tuple[Neuron, ...] = ()
    models_config: Text | None = None
    entitlements: Entitlements = Entitlements()
    ledger: Ledger = Ledger()
    polling: Polling = Polling()
    waiting: Waiting = Waiting()


class Limit(_Strict, frozen=True):
    """Tokens that a model can hold, read and write. None: what the neurons report."""

    context: PositiveTokens | None = None
    input: PositiveTokens | None = None
    output: PositiveTokens | None = None


class Cost(_Strict, frozen=True):
    """USD per million tokens. None: not priced; 0: free."""

    input: Price | None = None
    output: Price | None = None
    cache_read: Price | None = None
    cache_write: Price | None = None


class CatalogueModel(_Strict, frozen=True):
    """What the operator knows of a model that its neurons may not say."""

    id: ModelName
    harness: Text | None = None
    quant: Text | None = None
    vram_mb: Megabytes | None = None
    min_devices: Count = 1
    min_device_vram_mb: Megabytes | None = None
    pinned_on: tuple[Name, ...] = ()
    residency_priority: Priority | None = None  # None: 1000 when pinned, else 100
    source: Text | None = None
    limit: Limit = Limit()
    template_tokens: Tokens = 0
    image_tokens_max: PositiveTokens | None = None
    audio_tokens_max: PositiveTokens | None = None
    file_tokens_max: PositiveTokens | None = None
    image_steps: Count | None = None
    tokens_per_image_unit: PositiveTokens = 1_000
    tokens_per_audio_second: PositiveTokens | None = None
    tokens_per_speech_character: PositiveTokens | None = None
    cost: Cost | None = None
    capabilities: tuple[Text, ...] = ()
    idle_unload_seconds: SecondsOrOff = 0


class Catalogue(_Strict, frozen=True):
    """The whole of the file that `models_config` names. Aliases lead to ids, never to aliases."""

    models: tuple[CatalogueModel, ...] = ()
    aliases: dict[ModelName, ModelName] = field(default_factory=dict)
