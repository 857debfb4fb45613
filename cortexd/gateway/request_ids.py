"""The id under which a request is known: the client's own, or one of ours."""

import random

REQUEST_ID_MAX = 128
_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_RANDOM = random.Random()


def new_request_id() -> str:
    """An id for a request that brought none: unlike any other, but no secret."""
    return f"req_{_RANDOM.getrandbits(96):024x}"


def usable_request_id(offered: bytes | None) -> str | None:
    """The client's own `x-request-id` when it is short and plain enough to log, else None."""
    if offered and len(offered) <= REQUEST_ID_MAX and _ALPHABET.issuperset(offered):
        return offered.decode("ascii")
    return None
