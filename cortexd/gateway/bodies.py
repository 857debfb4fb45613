"""Request bodies while they are read: how much is kept, and what is thrown away.

Owns the limits on bodies and what breaking one answers. Refuses to know how bytes arrive: a face
feeds them. What a refused caller sends is read and thrown away, never kept.
"""

import msgspec

from cortexd.dialects.refusals import Refusal, RefusalKind

__all__ = ["Body", "BodyLimits", "BodyRoom"]


class BodyLimits(msgspec.Struct, frozen=True):
    """How much request body is kept: of one request, of all together, and for how long it may
    come.
    """

    body_bytes_max: int
    bodies_bytes_max: int
    body_seconds: float


class BodyRoom:
    """The memory that the bodies of all requests share, whichever face they come through."""

    def __init__(self, limits: BodyLimits) -> None:
        """All of `limits.bodies_bytes_max` is free."""
        self.limits = limits
        self.bytes_kept = 0

    def keep(self, size: int) -> bool:
        """Take `size` bytes; False, and none taken, when there are not so many left."""
        if self.bytes_kept + size > self.limits.bodies_bytes_max:
            return False
        self.bytes_kept += size
        return True

    def release(self, size: int) -> None:
        """Give `size` bytes back."""
        self.bytes_kept -= size
        assert self.bytes_kept >= 0, "more was given back than was kept"


class Body:
    """One request body: its pieces, or the refusal that the rest is thrown away for.

    `release` it once the request has been answered.
    """

    __slots__ = ("_bytes_kept", "_limit", "_pieces", "_room", "_size", "refusal")

    def __init__(self, room: BodyRoom, *, refusal: Refusal | None, declared: int = 0) -> None:
        """`refusal`: why the request is refused already. `declared`: its length, if it said so."""
        self.refusal = refusal
        self._pieces: list[bytes] = []
        self._bytes_kept = 0
        self._limit = room.limits.body_bytes_max
        self._room = room
        self._size = 0
        if declared > self._limit:
            self._too_large()

    @property
    def is_beyond(self) -> bool:
        """Past twice the limit nobody waits for the end any more."""
        return self._size > 2 * self._limit

    def take(self, piece: bytes) -> None:
        """Keep a piece, unless the request is refused, or is now."""
        self._size += len(piece)
        if self._size > self._limit:
            self._too_large()
        elif piece and self.refusal is None:
            if self._room.keep(len(piece)):
                self._pieces.append(piece)
                self._bytes_kept += len(piece)
            else:
                self._refuse(
                    RefusalKind.OVERLOADED,
                    "Too many large requests are being read at once; try again in a moment.",
                    retry_after_seconds=1,
                )

    def took_too_long(self) -> None:
        """Refuse, because the end has not come in time."""
        self._refuse(RefusalKind.REQUEST_TIMEOUT, "The request body took too long to come.")

    def whole(self) -> bytes:
        """The body in one piece; its memory stays accounted for."""
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self) -> None:
        """Give the memory back to the others."""
        self._room.release(self._bytes_kept)
        self._bytes_kept = 0

    def _too_large(self) -> None:
        self._refuse(
            RefusalKind.REQUEST_TOO_LARGE, f"The request body is larger than {self._limit} bytes."
        )

    def _refuse(
        self, kind: RefusalKind, message: str, retry_after_seconds: int | None = None
    ) -> None:
        """Refuse, unless it was refused already, and let go of what was kept."""
        if self.refusal is None:
            self.refusal = Refusal(kind, message, retry_after_seconds=retry_after_seconds)
        self._pieces.clear()
