"""What the numbers should be, and whether they are."""

from collections.abc import Mapping, Sequence

import msgspec

from tests.bench.report import Table, number

TOLERANCE = 1.2
"""A target that is missed by more than this factor fails a strict run; noise is below it."""


class Target(msgspec.Struct, frozen=True):
    """A bound on one figure. `at_least`: more is better."""

    figure: str
    words: str
    bound: float
    at_least: bool = False

    def missed_by(self, value: float) -> float:
        """How many times worse than the bound; 1 or less when it is met."""
        if self.at_least:
            return self.bound / value if value else float("inf")
        return value / self.bound


TARGETS = (
    Target("cpu_to_hypercorn_16", "CPU per request, of Hypercorn's, 16 connections", 0.25),
    Target("rate_to_hypercorn_16", "rate, times Hypercorn's, 16 connections", 3, at_least=True),
    Target("rate_to_hypercorn_64", "rate, times Hypercorn's, 64 connections", 6, at_least=True),
    Target("cpu_to_naive_16", "CPU per request, of Hypercorn + httpx, 16 connections", 1 / 15),
    Target("rate_to_nginx_16", "rate, of nginx's, 16 connections", 0.1, at_least=True),
    Target("rate_to_nginx_64", "rate, of nginx's, 64 connections", 0.15, at_least=True),
    Target("rate_to_litellm_16", "rate, times LiteLLM's, 16 connections", 70, at_least=True),
    Target("cpu_to_litellm_16", "CPU per request, of LiteLLM's, 16 connections", 0.01),
    Target("rate_to_sglang-router_16", "rate, of sglang-router's, 16", 0.8, at_least=True),
    Target("rate_to_sglang-router_64", "rate, of sglang-router's, 64", 1, at_least=True),
    Target("events_to_sglang-router_16", "events/s, of sglang-router's, 16", 1, at_least=True),
    Target("cpu_to_memory_16", "CPU per request, of that without a disk, 16", 1.8),
    Target("cpu_to_memory_64", "CPU per request, of that without a disk, 64", 1.4),
    Target("cpu_growth_16_to_64", "CPU per request, 64 connections to 16", 1.3),
    Target("cpu_growth_16_to_256", "CPU per request, 256 connections to 16", 1.3),
    Target("growth_keys", "CPU per request, most keys to one", 1.2),
    Target("growth_neurons", "CPU per request, most neurons to one", 1.2),
    Target("growth_models", "CPU per request, most models to one", 1.2),
    Target("growth_entries", "CPU per request, most entries to a thousand", 1.2),
    Target("added_beyond_sync_p50_us", "added p50 at 1 connection beyond a sync, us", 400),
    Target("idle_mb", "memory idle, MB", 45),
    Target("kb_per_stream_1000", "memory for each of 1000 open streams, kB", 10),
    Target("paced_added_p50_us_500", "added p50 of an event of 500 streams, us", 3000),
    Target("paced_core_500", "500 streams at 50 events per second, of a core", 0.7),
    Target("paced_rate_to_direct_1000", "rate of 1000 streams, of direct", 0.97, at_least=True),
    Target("reservations_16", "durable reservations/s, 16 callers", 25_000, at_least=True),
    Target("slow_reservations_16", "the same with a sync of 10 ms", 1000, at_least=True),
    Target("rate_to_sqlite_128", "rate, times SQLite's, 128 callers", 5, at_least=True),
    Target("open_full_seconds", "opening a large ledger, newest segment full, s", 1),
    Target("fleet_turn_us", "a request's turn, 50 neurons and 200 models, us", 25),
    Target("fleet_turn_growth", "the same, of that of 1 neuron and 1 model", 3),
    Target("fleet_news_us", "news of one poll in that fleet, us", 200),
    Target("fleet_cold_us", "deciding on a load in that fleet, us", 5_000),
    Target("fleet_held_share", "forty models that wait there for cards in use, of a core", 0.3),
    Target("fleet_listed_after_news_us", "its list of models after a poll, us", 2_000),
    Target("black_holes_models_p50_ms", "the same on the wire, every neuron a black hole, ms", 10),
    Target("black_holes_models_p99_ms", "the same, 99 of 100, ms", 50),
    Target("replayed", "journal entries replayed per second", 500_000, at_least=True),
)


def judged(figures: Mapping[str, float]) -> Table:
    """Every target whose figure was measured, and how far from it we are."""
    rows: list[tuple[str, ...]] = []
    for target in TARGETS:
        value = figures.get(target.figure)
        if value is not None:
            missed = target.missed_by(value)
            verdict = "met" if missed <= 1 else f"missed {number(missed)}x"
            limit = f"{'>=' if target.at_least else '<='} {number(target.bound)}"
            rows.append((target.words, number(value), limit, verdict))
    return Table("Targets", ("", "measured", "target", ""), tuple(rows))


def far_off(figures: Mapping[str, float]) -> Sequence[str]:
    """The targets that are missed by more than noise explains."""
    return [
        target.words
        for target in TARGETS
        if target.figure in figures and target.missed_by(figures[target.figure]) > TOLERANCE
    ]
