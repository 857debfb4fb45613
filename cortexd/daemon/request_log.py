"""One line for every request, and a line more where one should be looked at."""

import logging
from functools import lru_cache

from cortexd.daemon.logs import Output, quoted
from cortexd.finished import Finished
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Refused

log = logging.getLogger("cortexd.request")

_named = lru_cache(maxsize=1024)(quoted)
"""`quoted`, of what the operator and the neurons named: there are few of them, again and again."""


def request_line(finished: Finished, output: Output) -> None:
    """One line for one finished request, one more where a shadow cap would have refused it, and an
    error where a neuron used more than was reserved.
    """
    if log.isEnabledFor(logging.INFO):
        output.line(log.name, message(finished))
    if finished.would_refuse is not None:
        _shadow_line(finished, finished.would_refuse)
    if finished.charge is not None and finished.charge.overrun:
        _overrun_line(finished, finished.charge)


def _shadow_line(finished: Finished, would_refuse: Refused) -> None:
    log.info(
        "event=budget_shadow request_id=%s key_id=%s scope=%s cap=%s/%s asked=%d available=%d",
        finished.request_id,
        quoted(finished.key_id or ""),
        quoted(would_refuse.standing.scope),
        would_refuse.standing.unit,
        would_refuse.standing.window.words,
        would_refuse.asked,
        would_refuse.standing.available,
    )


def _overrun_line(finished: Finished, charge: Charge) -> None:
    log.error(
        "event=overrun request_id=%s neuron=%s model=%s reserved=%d charged=%d "
        "action='this neuron does not keep to max_tokens or reports wrong usage; "
        "check its engine, or take it out of the configuration'",
        finished.request_id,
        quoted(finished.neuron or ""),
        quoted(finished.model or ""),
        finished.reserved,
        charge.tokens,
    )


def message(told: Finished) -> str:
    """All that is known of a request, in one order. What it never came to is left out.

    Plain on purpose, as all requests come by.
    """
    said = (
        f"event=request request_id={told.request_id} method={quoted(told.method)} "
        f"path={quoted(told.path)} status={told.status}"
    )
    if told.code is not None:
        said += f" code={told.code}"
    if told.account_id:
        said += f" account={_named(told.account_id)}"
    if told.key_id:
        said += f" key={_named(told.key_id)}"
    if told.model:
        said += f" model={_named(told.model)}"
    if told.neuron:
        said += f" neuron={_named(told.neuron)}"
    if told.stream:
        said += " stream=1"
    if told.reserved is not None:
        said += f" reserved={told.reserved}"
    if told.clamped_from is not None:
        said += f" clamped_from={told.clamped_from}"
    if told.unjournalled:
        said += " unjournalled=1"
    if told.charge is not None:
        said += f" charged={told.charge.tokens} why={told.charge.why}"
    if told.ending is not None:
        said += f" ending={told.ending.value}"
    if told.waited_ms:
        said += f" waited_ms={told.waited_ms}"
    if told.unserved is not None:
        said += f" unserved={told.unserved.cause.value}"
    if told.failure:
        said += f" failure={quoted(told.failure)}"
    if told.first_token_seconds is not None:
        said += f" first_token_ms={round(told.first_token_seconds * 1000)}"
    said += f" duration_ms={round(told.duration_seconds * 1000)}"
    if told.dropped:
        said += f" dropped={','.join(told.dropped)}"
    if told.notes:
        said += f" notes={','.join(told.notes)}"
    if told.retry_count is not None:
        said += f" sdk_retry={told.retry_count}"
    return said
