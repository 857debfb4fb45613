"""What systemd is told: READY, STOPPING, STATUS and the watchdog's heartbeat.

Source: sd_notify(3) and sd_watchdog_enabled(3). Without `NOTIFY_SOCKET` nothing is told.
"""

import os
import socket
from collections.abc import Mapping

import trio


class Notifier:
    """The notification socket of the service manager, or nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` from `environment`."""
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog_seconds = 0.0
        if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            usec = environment.get("WATCHDOG_USEC", "")
            self._watchdog_seconds = int(usec) / 1e6 if usec.isdigit() else 0.0

    def tell(self, *states: str) -> None:
        """Send assignments such as `READY=1`. A service manager that is gone is no fault of
        ours.
        """
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            try:
                channel.sendto("\n".join(states).encode(), self._address)
            except OSError:
                return

    async def keep_alive(self) -> None:
        """Tell the watchdog twice per period, from the event loop: a hung loop stops telling."""
        if not self._address or self._watchdog_seconds <= 0:
            return
        while True:
            self.tell("WATCHDOG=1")
            await trio.sleep(self._watchdog_seconds / 2)
