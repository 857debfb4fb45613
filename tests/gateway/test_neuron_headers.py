"""What neurons are told of a request, whatever its client sent."""

import pytest

from cortexd.fleet.outgoing import NO_LINES
from cortexd.gateway.auth import ANONYMOUS_PRINCIPAL
from cortexd.gateway.exchange import Head
from cortexd.gateway.neuron_headers import neuron_headers


@pytest.mark.parametrize(
    ("thinking", "lines"),
    [(b"true", b"x-include-thinking: true\r\n"), (b"a\x01b", NO_LINES), (b"a\r\nb: c", NO_LINES)],
)
def test_a_wish_to_see_the_thinking_is_passed_on_where_a_header_can_say_it(
    thinking: bytes, lines: bytes
) -> None:
    """Over HTTP/2 a client can send what HTTP/1.1 forbids; that is no bug of ours to be logged."""
    head = Head("POST", "/v1/chat/completions", {b"x-include-thinking": thinking}, "r")
    assert neuron_headers(ANONYMOUS_PRINCIPAL, head) == lines
