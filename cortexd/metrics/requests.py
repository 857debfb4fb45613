"""What is counted of requests, by model and neuron, and of what they cost, by account and key."""

from cortexd.dialects.usage import EndingKind
from cortexd.finished import Finished
from cortexd.fleet.answer import Clock
from cortexd.fleet.serving import Cause
from cortexd.ledger.charging import Charge
from cortexd.metrics.tallies import Labels, Tallies, Tally

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SPEEDS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)

_MODEL_NODE = ("model", "node")

_NEURON_CLOCKS: dict[Clock, str] = {
    "first_byte": "first_token",
    "between_bytes": "between_tokens",
}
_FLEET_CLOCKS = {
    Cause.QUEUE_CLOCK: "queue",
    Cause.LOAD_CLOCK: "load",
    Cause.LOADING: "load",
}


class RequestInstruments:
    """What is counted of requests."""

    def __init__(self, tallies: Tallies) -> None:
        """Begin the instruments."""

        def counter(name: str, text: str) -> Tally:
            return tallies.counter(name, text, _MODEL_NODE)

        self._requests = counter("cortex_requests_total", "Requests to inference endpoints")
        self._errors = counter("cortex_request_errors_total", "Requests answered with an error")
        self._duration = tallies.histogram(
            "cortex_request_duration_seconds",
            "Time from the request to the end of its answer",
            _SECONDS,
            _MODEL_NODE,
        )
        self._first_token = tallies.histogram(
            "cortex_time_to_first_token_seconds",
            "Time from the request to its first bytes",
            _SECONDS,
            _MODEL_NODE,
        )
        self._speed = tallies.histogram(
            "cortex_tokens_per_second",
            "Completion tokens per second after the first",
            _SPEEDS,
            _MODEL_NODE,
        )
        self._prompt = counter("cortex_prompt_tokens_total", "Prompt tokens that neurons reported")
        self._completion = counter(
            "cortex_completion_tokens_total", "Completion tokens that neurons reported"
        )
        self._cached = counter(
            "cortex_cached_prompt_tokens_total", "Prompt tokens that neurons took from their cache"
        )
        self._spend = SpendInstruments(tallies)
        self._overrun = counter(
            "cortex_overrun_tokens_total", "Tokens that neurons used beyond what was reserved"
        )
        self._expired = tallies.counter(
            "cortex_clock_expired_total",
            "Requests that ended because a limit on waiting ran out",
            ("clock",),
        )
        self._unjournalled = tallies.counter(
            "cortex_ledger_unjournalled_requests_total",
            "Requests without a cap that were served while the ledger took no reservations",
        )

    def finished(self, finished: Finished) -> None:
        """Count one finished request; only inference requests have a model, if an empty one."""
        if finished.refused is not None:
            self._spend.refused(finished)
        if finished.would_refuse is not None:
            self._spend.shadow_refused(finished)
        if finished.unjournalled:
            self._unjournalled[()] += 1
        expired = _expired_clock(finished)
        if expired is not None:
            self._expired[expired,] += 1
        if finished.model is None:
            return
        labels = (finished.model, finished.neuron or "")
        self._requests[labels] += 1
        left_early = finished.ending is EndingKind.CLIENT_GONE
        failed = finished.failure is not None or finished.code is not None
        if failed or (finished.status >= 400 and not left_early):
            self._errors[labels] += 1
        self._duration[labels].add(finished.duration_seconds)
        if finished.charge is not None:
            self._spend.charged(finished, finished.charge)
            if finished.charge.overrun:
                self._overrun[labels] += finished.charge.overrun
        if finished.first_token_seconds is not None:
            self._answered(finished, finished.first_token_seconds, labels)

    def _answered(self, finished: Finished, first: float, labels: Labels) -> None:
        self._first_token[labels].add(first)
        usage = finished.usage
        if usage is None:
            return
        self._prompt[labels] += usage.prompt_tokens
        self._completion[labels] += usage.completion_tokens
        self._cached[labels] += usage.cached_prompt_tokens
        seconds = finished.duration_seconds - first
        if finished.stream and usage.completion_tokens > 1 and seconds > 0:
            self._speed[labels].add((usage.completion_tokens - 1) / seconds)


def _expired_clock(finished: Finished) -> str | None:
    """Which of the four clocks ended a request; None: none did."""
    if finished.clock is not None:
        return _NEURON_CLOCKS[finished.clock]
    return None if finished.unserved is None else _FLEET_CLOCKS.get(finished.unserved.cause)


class SpendInstruments:
    """What is counted per account and key."""

    def __init__(self, tallies: Tallies) -> None:
        """Begin the instruments."""

        def counter(name: str, text: str, *more: str) -> Tally:
            return tallies.counter(name, text, ("account", "key", *more))

        self._tokens = counter("cortex_spend_tokens_total", "Tokens charged")
        self._prompt = counter("cortex_spend_prompt_tokens_total", "Prompt tokens charged")
        self._completion = counter(
            "cortex_spend_completion_tokens_total", "Completion tokens charged"
        )
        self._refusals = counter(
            "cortex_budget_refusals_total", "Requests refused because of a cap", "reason"
        )
        self._shadow_refusals = counter(
            "cortex_budget_shadow_refusals_total", "Requests that a shadow cap would have refused"
        )

    def charged(self, finished: Finished, charge: Charge) -> None:
        """Count what one request cost."""
        labels = _spender(finished)
        self._tokens[labels] += charge.tokens
        self._prompt[labels] += charge.prompt_tokens
        self._completion[labels] += charge.completion_tokens

    def refused(self, finished: Finished) -> None:
        """Count one refusal by a cap."""
        self._refusals[*_spender(finished), finished.code or ""] += 1

    def shadow_refused(self, finished: Finished) -> None:
        """Count one request that was served although a shadow cap has no room for it."""
        self._shadow_refusals[_spender(finished)] += 1


def _spender(finished: Finished) -> Labels:
    """Account and key."""
    return finished.account_id or "", finished.key_id or ""
