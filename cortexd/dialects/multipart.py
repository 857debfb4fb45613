"""multipart/form-data bodies: bytes -> parts in any order, and parts -> bytes of our own.

Owns the framing. Refuses to know what the parts mean. Source: RFC 7578, RFC 2046 section 5.1.1.
Nothing of a client's own framing is passed on: a neuron reads parts that were written here, so that
both cannot disagree on where one ends.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS_MAX = 64
HEADER_BYTES_MAX = 8_192

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*([a-z*]+)=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_PLAIN_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}", re.ASCII)
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f"\\/]')


class NoForm(Exception):
    """The body is no form; the message says why, fit for clients."""


class Part(msgspec.Struct, frozen=True):
    """One field. `filename` and `content_type` are None where the client gave none that is plain.

    Example: name "file", filename "hello.wav", content_type "audio/wav".
    """

    name: str
    data: bytes
    filename: str | None = None
    content_type: str | None = None


def read_form(body: bytes, content_type: str) -> list[Part]:
    """Cut a body into its parts, in the order they came. Raises NoForm."""
    media_type = content_type.partition(";")[0].strip().lower()
    found = _BOUNDARY.search(content_type)
    if media_type != "multipart/form-data" or found is None:
        raise NoForm("The request must be multipart/form-data with a boundary.")
    mark = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    # The line end before a boundary belongs to it, and the first one needs none.
    pieces = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise NoForm("The multipart body is not complete: its last boundary is missing.")
    if len(pieces) - 2 > PARTS_MAX:
        raise NoForm(f"The multipart body has more than {PARTS_MAX} parts.")
    return [_part(piece) for piece in pieces[1:-1]]


def write_form(parts: Sequence[Part]) -> tuple[str, bytes]:
    """Write parts as a body; return its content type and the body. Equal parts give equal bytes."""
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part.data)
    boundary = f"cortexd-{digest.hexdigest()}"
    lines: list[bytes] = []
    for part in parts:
        assert boundary.encode() not in part.data, "a text that holds its own hash"
        shown = f'form-data; name="{_plain(part.name)}"'
        if part.filename is not None:
            shown += f'; filename="{_plain(part.filename)}"'
        lines += [f"--{boundary}".encode(), f"content-disposition: {shown}".encode()]
        if part.content_type is not None:
            lines.append(f"content-type: {part.content_type}".encode())
        lines += [b"", part.data]
    lines += [f"--{boundary}--".encode(), b""]
    return f"multipart/form-data; boundary={boundary}", b"\r\n".join(lines)


def _part(piece: bytes) -> Part:
    after_mark, _, rest = piece.partition(b"\r\n")
    # A part without headers begins with the empty line that would end them.
    head, found, data = (b"\r\n" + rest).partition(b"\r\n\r\n")
    if after_mark.strip(b" \t") or not found or len(head) > HEADER_BYTES_MAX:
        raise NoForm("A part of the multipart body has no readable headers.")
    headers = [line.partition(":") for line in head.decode("utf-8", "replace").splitlines()]
    values = {name.strip().lower(): value.strip() for name, _, value in headers}
    disposition = values.get("content-disposition", "")
    named = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare
        for name, quoted, bare in _PARAMETER.findall(disposition)
    }
    if not disposition.lower().startswith("form-data") or "name" not in named:
        raise NoForm("A part of the multipart body has no name.")
    kind = values.get("content-type", "").partition(";")[0].strip()
    return Part(
        name=named["name"],
        data=data,
        filename=named.get("filename"),
        content_type=kind if _PLAIN_TYPE.fullmatch(kind) else None,
    )


def _plain(name: str) -> str:
    """A name that needs no quoting and leads to no folder."""
    return _NOT_IN_NAMES.sub("_", name)[:128]
