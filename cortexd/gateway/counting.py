"""A closer bound for a prompt that does not fit by its bytes: an engine counts it.

Owns when that is worth a question, whom it goes to, and how long it may take. Bytes come first and
ask nobody; an engine is asked only where its count could let the request in, and only to count.
"""

import msgspec
import trio

from cortexd.dialects.asked import Asked
from cortexd.dialects.engine_traits import TRAITS
from cortexd.dialects.exact_count import question, read_count, uncounted_tokens
from cortexd.dialects.upper_bound import Bound
from cortexd.fleet.pool import NeuronBroke, NeuronSilent, NeuronUnreachable, Pool
from cortexd.fleet.routing import Route
from cortexd.gateway.auth import Principal
from cortexd.gateway.neuron_answer import read_up_to
from cortexd.gateway.sending import Sending
from cortexd.ledger.entries import Refused

COUNT_SECONDS = 5
"""For all neurons together."""

COUNT_BYTES_MAX = 4 * 1024 * 1024
"""vLLM repeats the tokens that it counted."""


def least_bound(principal: Principal, ceiling: Bound) -> Bound:
    """What a request does not do without: all of its output, unless its key lets it be cut."""
    if principal.min_output is None:
        return ceiling
    output_tokens = min(principal.min_output, ceiling.output_tokens)
    return msgspec.structs.replace(ceiling, output_tokens=output_tokens)


def could_fit(refused: Refused | None, least: Bound, asked: Asked) -> bool:
    """Whether a smaller count of the prompt could let a refused request in.

    `refused` None: it was no cap. `least`: what it does not do without, its prompt by its bytes.
    """
    if refused is None or refused.standing.unit != "tok":
        return False
    prompt_tokens = max(asked.least_tokens, 1)
    at_best = msgspec.structs.replace(least, prompt_tokens=prompt_tokens)
    return at_best.total <= refused.standing.available


async def closer(ceiling: Bound, sending: Sending, routes: list[Route], pool: Pool) -> Bound | None:
    """The bound with a counted prompt; None where nobody can count it.

    `routes`: to every neuron that may get the request. Each has to be of a kind that counts, and to
    be asked in words that can be counted; all are asked, as they may have different templates, and
    the largest count is taken.
    """
    asked = sending.request.asked
    is_chat = "messages" in asked.fields and asked.prompts == 1 and not asked.prompt.has_media
    if not (routes and is_chat and all(_can_count(sending, route) for route in routes)):
        return None
    most = 0
    with trio.move_on_after(COUNT_SECONDS) as patience:
        for route in routes:
            tokens = await _ask(sending, route, pool)
            if tokens is None:
                return None
            most = max(most, tokens)
    if patience.cancelled_caught or most >= ceiling.prompt_tokens:
        return None
    return msgspec.structs.replace(ceiling, prompt_tokens=most)


def _can_count(sending: Sending, route: Route) -> bool:
    count = TRAITS[route.kind].count
    if count is None or sending.way_to(route).surface is not sending.surface:
        return False
    return uncounted_tokens(sending.request.asked.fields, count) is not None


async def _ask(sending: Sending, route: Route, pool: Pool) -> int | None:
    """Have a neuron count; whatever goes wrong, there is no count."""
    count, asked = TRAITS[route.kind].count, sending.request.asked
    assert count is not None, "only who counts is asked"
    beside = uncounted_tokens(asked.fields, count)
    outgoing, _ = sending.to(route)
    outgoing = msgspec.structs.replace(
        outgoing,
        path=count.path + TRAITS[route.kind].query,
        body=question(outgoing.body, count),
    )
    try:
        async with await pool.send(
            outgoing, first_byte_seconds=COUNT_SECONDS, between_bytes_seconds=COUNT_SECONDS
        ) as answer:
            if answer.status != 200:
                return None
            body = await read_up_to(answer, COUNT_BYTES_MAX)
    except (NeuronBroke, NeuronSilent, NeuronUnreachable):
        return None
    tokens = read_count(body, count, least=asked.least_tokens)
    return None if tokens is None or beside is None else tokens + beside
