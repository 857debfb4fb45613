"""What one listener grants its clients, whoever speaks on the connection."""

import msgspec

HANDSHAKE_SECONDS = 10
"""For a TLS handshake."""


class ServerLimits(msgspec.Struct, frozen=True):
    """What one listener grants its clients. Seconds and bytes."""

    connections_max: int
    head_bytes_max: int
    head_seconds: float
    idle_seconds: float
    send_stall_seconds: float
