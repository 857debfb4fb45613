"""How many sockets this process may have open: as many as the host lets it.

A login shell or an old service file often gives a soft limit of 1024, which was set for programs
that use select(2). This one uses epoll, so it takes what the hard limit allows.
"""

import logging
import resource

log = logging.getLogger("cortexd.daemon")

PER_CONNECTION = 2
"""A request that is being answered holds its client's socket and a neuron's."""

BESIDES = 64
"""Listeners, the journal, polls, the metrics listener's few clients."""


def raise_descriptor_limit(connections_max: int) -> int:
    """Raise the soft limit of open files to the hard one; the limit that holds then.

    A limit too low for `connections_max` is told in the log, and the daemon runs with it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:  # a sandbox may forbid the call itself
            log.warning("event=descriptor_limit_kept limit=%d error=%r", soft, str(error))
    needed = PER_CONNECTION * connections_max + BESIDES
    if soft != resource.RLIM_INFINITY and soft < needed:
        log.warning(
            "event=few_descriptors limit=%d needed=%d action=%r",
            soft,
            needed,
            "raise LimitNOFILE= (ulimit -Hn) or lower gateway.connections_max",
        )
    return soft
