"""What may be written on a connection to a neuron."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.fleet.addresses import address_of
from cortexd.fleet.outgoing import CONNECTION_HEADERS, Outgoing, head_bytes, header_lines

BASE = "http://beast:13131/p"


def head(outgoing: Outgoing) -> bytes:
    return head_bytes(outgoing, address_of(outgoing.base_url))


def test_a_head_carries_prefix_host_headers_and_length() -> None:
    outgoing = Outgoing(
        BASE, "POST", "/v1/chat?a=b", header_lines(((b"X-A", b"b\tc\xe4"),)), b"body"
    )
    assert head(outgoing) == (
        b"POST /p/v1/chat?a=b HTTP/1.1\r\nhost: beast:13131\r\n"
        b"X-A: b\tc\xe4\r\ncontent-length: 4\r\n\r\n"
    )


def test_a_post_without_a_body_says_so_and_a_get_says_nothing() -> None:
    assert b"content-length: 0\r\n" in head(Outgoing(BASE, "POST", "/"))
    assert b"content-length" not in head(Outgoing(BASE, "GET", "/"))


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\n", b"\xe4", b"a\x00"])
def test_no_header_name_can_smuggle(name: bytes) -> None:
    with pytest.raises(ValueError, match="forbids"):
        head(Outgoing(BASE, "GET", "/", header_lines(((name, b"x"),))))


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\n", b"\ra", b"a\x00b", b"\x7f"])
def test_no_header_value_can_smuggle(value: bytes) -> None:
    with pytest.raises(ValueError, match="forbids"):
        head(Outgoing(BASE, "GET", "/", header_lines(((b"a", value),))))


@pytest.mark.parametrize("name", sorted(CONNECTION_HEADERS))
def test_headers_of_the_connection_are_not_the_callers(name: bytes) -> None:
    with pytest.raises(ValueError, match="belongs to the connection"):
        head(Outgoing(BASE, "GET", "/", header_lines(((name.upper(), b"x"),))))


@pytest.mark.parametrize("path", ["/a b", "/a\r\n", "/ä", "/a#b", "/\x00"])
def test_no_path_can_smuggle(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        head(Outgoing(BASE, "GET", path))


def test_a_path_begins_with_a_slash() -> None:
    with pytest.raises(ValueError, match="path"):
        head(Outgoing("http://beast", "GET", "v1"))


@pytest.mark.parametrize("method", ["", "get", "GET /", "GET\r\n", "X" * 17])
def test_a_method_is_capital_letters(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        head(Outgoing(BASE, method, "/"))


@settings(deadline=None)  # the machine may be busy
@given(path=st.text(max_size=12), name=st.binary(max_size=8), value=st.binary(max_size=12))
def test_whatever_is_accepted_is_one_request_with_one_more_header(
    path: str, name: bytes, value: bytes
) -> None:
    try:
        wire = head(Outgoing(BASE, "GET", "/" + path, header_lines(((name, value),))))
    except ValueError:
        return
    assert wire.endswith(b"\r\n\r\n")
    assert wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n") == 4
    assert wire.split(b"\r\n")[0].count(b" ") == 2
