"""The types of single settings: what range a value has, and how that is said to an operator.

A range is written as `msgspec.Meta`, and its `description` is what an operator is told when a value
does not fit it. Which setting has which type is in schema.py.
"""

from typing import Annotated

from msgspec import Meta

TOKENS_LIMIT = 2**53
"""Amounts are below this: the largest range that every JSON reader keeps exact."""

DAY_SECONDS = 86_400
TEN_YEARS_SECONDS = 3_660 * DAY_SECONDS

Tokens = Annotated[
    int, Meta(ge=0, lt=TOKENS_LIMIT, description="a whole number of tokens, from 0 to 2^53 - 1")
]
PositiveTokens = Annotated[
    int, Meta(ge=1, lt=TOKENS_LIMIT, description="a whole number of tokens, from 1 to 2^53 - 1")
]
Count = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")]
CountOrOff = Annotated[
    int, Meta(ge=0, le=1_000_000, description="a whole number from 0 to 1000000")
]
Bytes = Annotated[
    int, Meta(ge=1_024, le=2**40, description="a whole number of bytes, from 1024 to 2^40")
]
Megabytes = Annotated[
    int, Meta(ge=0, le=2**30, description="a whole number of megabytes, from 0 to 2^30")
]
Requests = Annotated[
    int, Meta(ge=0, lt=TOKENS_LIMIT, description="a whole number of requests, from 0 to 2^53 - 1")
]
DaysOrOff = Annotated[
    int, Meta(ge=0, le=36_600, description="a whole number of days, from 0 (for ever) to 36600")
]
BytesOrOff = Annotated[
    int,
    Meta(ge=0, le=2**60, description="a whole number of bytes, from 0 (no limit) to 2^60"),
]
Priority = Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number from 0 to 1000000")]
_SECONDS = "a number of seconds above 0, up to 86400 (a day)"
Seconds = (
    Annotated[int, Meta(gt=0, le=DAY_SECONDS, description=_SECONDS)]
    | Annotated[float, Meta(gt=0, le=DAY_SECONDS, description=_SECONDS)]
)
_SECONDS_OR_OFF = "a number of seconds from 0 (off) to 86400 (a day)"
SecondsOrOff = (
    Annotated[int, Meta(ge=0, le=DAY_SECONDS, description=_SECONDS_OR_OFF)]
    | Annotated[float, Meta(ge=0, le=DAY_SECONDS, description=_SECONDS_OR_OFF)]
)
_WINDOW_SECONDS = "a number of seconds above 0, up to 316224000 (ten years)"
WindowSeconds = (
    Annotated[int, Meta(gt=0, le=TEN_YEARS_SECONDS, description=_WINDOW_SECONDS)]
    | Annotated[float, Meta(gt=0, le=TEN_YEARS_SECONDS, description=_WINDOW_SECONDS)]
)
_WEIGHT = "a number above 0, up to 1000"
Weight = (
    Annotated[int, Meta(gt=0, le=1_000, description=_WEIGHT)]
    | Annotated[float, Meta(gt=0, le=1_000, description=_WEIGHT)]
)
_PRICE = "a number of USD per million tokens, from 0 to 1000000"
Price = (
    Annotated[int, Meta(ge=0, le=1_000_000, description=_PRICE)]
    | Annotated[float, Meta(ge=0, le=1_000_000, description=_PRICE)]
)
Name = Annotated[
    str,
    Meta(
        pattern=r"\A[!-~]{1,64}\Z",
        description="1 to 64 printable ASCII characters without spaces",
    ),
]
ModelName = Annotated[
    str, Meta(min_length=1, max_length=256, description="a text of 1 to 256 characters")
]
Sha256 = Annotated[
    str,
    Meta(
        pattern=r"\A[0-9A-Fa-f]{64}\Z",
        description="64 hexadecimal digits, as `printf %s THE-KEY | sha256sum` prints them",
    ),
]
TimeZone = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*\Z",
        max_length=64,
        description="the name of a time zone, as in Europe/Berlin",
    ),
]
FieldName = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,64}\Z", description="the name of a field of the body")
]
Origin = Annotated[
    str,
    Meta(
        pattern=r"\A(?:\*|[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9.:\[\]_-]{1,255})\Z",
        description="the origin of a web page, as in https://chat.example.org, or * for all",
    ),
]
HardwareAddress = Annotated[
    str,
    Meta(
        pattern=r"\A[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})\Z",
        description='a hardware address in quotes, as in "52:54:00:12:34:56"',
    ),
]
SocketPath = Annotated[
    str,
    Meta(
        pattern=r"\A(?!unix:).",
        max_length=4_096,
        description="the path of a socket, without unix: in front",
    ),
]
Text = Annotated[str, Meta(min_length=1, max_length=4_096, description="a text that is not empty")]
