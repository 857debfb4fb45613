"""A core on a listener, with both faces: HTTP/1.1 inline, HTTP/2 by ASGI under Hypercorn.

Owns how the two are put together, alike for everything that the daemon listens on. Refuses to know
what a core does.
"""

from collections.abc import Callable

import trio

from cortexd.daemon.http_server import Closing, Listener, ServerLimits, serve
from cortexd.deadlines import Deadlines
from cortexd.gateway.asgi import AsgiApp
from cortexd.gateway.bodies import BodyLimits, BodyRoom
from cortexd.gateway.exchange import AdmittedT, Core
from cortexd.gateway.http1 import Http1Face, Http1Limits


async def serve_core(
    core: Core[AdmittedT],
    listener: Listener,
    limits: ServerLimits,
    bodies: BodyLimits,
    *,
    closing: Closing,
    deadlines: Deadlines,
    contained: Callable[[], None],
    hears_hang_ups: bool = True,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `core` until `closing`; returns when the last connection has ended.

    `contained` is called for every connection that ended in an exception. `hears_hang_ups` False:
    for a core that ends nothing when its client leaves.
    """
    room = BodyRoom(bodies)
    face = Http1Face if hears_hang_ups else _DeafFace
    fast = Http1Limits(limits.head_bytes_max, limits.head_seconds, limits.idle_seconds)
    await serve(
        AsgiApp(core, room),
        [listener],
        limits,
        closing,
        contained=contained,
        fast=face(core, fast, room, deadlines),
        task_status=task_status,
    )


class _DeafFace(Http1Face[AdmittedT]):
    """For which no task wakes every second to look for hang-ups that nobody asks about."""

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        """See `Http1Face`: notices nothing."""
        task_status.started()
