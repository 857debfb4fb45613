"""The log: one line per event, key=value, to standard error, for journald or a terminal.

journald knows the time and the unit, so under it a line starts with the priority that it
understands (sd-daemon(3)); elsewhere with a time stamp. No key and no prompt is ever handed to a
logger.
"""

import logging
import re
import sys
from collections.abc import Mapping

from cortexd.finished import Finished

log = logging.getLogger("cortexd.request")

_PLAIN = re.compile(r"[A-Za-z0-9._:/-]+")

_PRIORITY = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class _JournalFormatter(logging.Formatter):
    """`<6>cortexd.request event=...`: every line of a record carries its priority."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return prefix + super().format(record).replace("\n", f"\n{prefix}")


def set_up(environment: Mapping[str, str]) -> None:
    """Send all logging of the process to standard error."""
    output = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in environment:
        output.setFormatter(_JournalFormatter("%(name)s %(message)s"))
    else:
        output.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(logging.INFO)
    # No line names a thread, a process or a line of code; to find them costs a third of a line
    # (https://docs.python.org/3/howto/logging.html#optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every poll


def request_line(finished: Finished) -> None:
    """One line for one finished request, one more where a shadow cap would have refused it, and an
    error where a neuron used more than was reserved.
    """
    said = [f"{name}={value}" for name, value in _fields(finished) if value is not None]
    log.info("%s", " ".join(said))
    would_refuse = finished.would_refuse
    if would_refuse is not None:
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
    charge = finished.charge
    if charge is not None and charge.overrun:
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


def _fields(finished: Finished) -> tuple[tuple[str, object | None], ...]:
    """All that a line may say; None: it never came to that."""
    charge = finished.charge
    first, unserved = finished.first_token_seconds, finished.unserved
    return (
        ("event", "request"),
        ("request_id", finished.request_id),
        ("method", finished.method),
        ("path", quoted(finished.path)),
        ("status", finished.status),
        ("code", finished.code),
        ("account", quoted(finished.account_id) if finished.account_id else None),
        ("key", quoted(finished.key_id) if finished.key_id else None),
        ("model", quoted(finished.model) if finished.model else None),
        ("neuron", quoted(finished.neuron) if finished.neuron else None),
        ("stream", 1 if finished.stream else None),
        ("reserved", finished.reserved),
        ("clamped_from", finished.clamped_from),
        ("unjournalled", 1 if finished.unjournalled else None),
        ("charged", charge.tokens if charge is not None else None),
        ("why", charge.why if charge is not None else None),
        ("ending", finished.ending.value if finished.ending is not None else None),
        ("waited_ms", finished.waited_ms or None),
        ("unserved", unserved.cause.value if unserved is not None else None),
        ("failure", quoted(finished.failure) if finished.failure else None),
        ("first_token_ms", round(first * 1000) if first is not None else None),
        ("duration_ms", round(finished.duration_seconds * 1000)),
        ("dropped", ",".join(finished.dropped) or None),
        ("notes", ",".join(finished.notes) or None),
        ("sdk_retry", finished.retry_count),
    )


def quoted(text: str, *, characters_max: int = 200) -> str:
    """A value from outside, made safe for one key=value line: bounded, printable, and in quotes
    unless every character of it is plain.
    """
    if len(text) <= characters_max and _PLAIN.fullmatch(text):
        return text  # as nearly everything is
    safe = "".join(letter if letter.isprintable() else "?" for letter in text[:characters_max])
    if _PLAIN.fullmatch(safe):
        return safe
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'
