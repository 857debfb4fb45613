"""Claims about the addresses that an operator may write."""

import pytest

from cortexd.config.addresses import (
    AddressFault,
    TcpAddress,
    UnixAddress,
    is_loopback,
    parse_destination,
    parse_endpoint,
    parse_listen,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:31313", TcpAddress("127.0.0.1", 31313)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("box.internal:65535", TcpAddress("box.internal", 65535)),
        ("unix:/run/cortexd.sock", UnixAddress("/run/cortexd.sock")),
    ],
)
def test_a_listen_address_is_host_and_port_or_a_socket_file(
    text: str, address: TcpAddress | UnixAddress
) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("31313", "not a listen address"),
        ("", "not a listen address"),
        (":80", "not a host name or address"),
        ("*:80", "not a host name or address"),
        ("1.2.3:80", "not a host name or address"),
        ("256.0.0.1:80", "not a host name or address"),
        ("-x:80", "not a host name or address"),
        ("::1:80", "more than one colon"),
        ("http://h:80", "more than one colon"),
        ("[1.2.3.4]:80", "no IPv6 address between the brackets"),
        ("[zz]:80", "no IPv6 address between the brackets"),
        ("h:65536", "not a port"),
        ("h:-1", "not a port"),
        ("h:", "not a port"),
        ("h:８０", "not a port"),
        ("unix:run/x.sock", "the path of the socket is not absolute"),
        ("unix:/" + "x" * 107, "the path of the socket is longer than 107 bytes"),
    ],
)
def test_a_bad_listen_address_says_what_is_wrong_and_what_to_write(text: str, what: str) -> None:
    with pytest.raises(AddressFault) as caught:
        parse_listen(text)
    assert caught.value.what == what
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("255.255.255.255:9", TcpAddress("255.255.255.255", 9)),
        ("lan.internal:40000", TcpAddress("lan.internal", 40000)),
        ("[ff02::1]:9", TcpAddress("ff02::1", 9)),
    ],
)
def test_a_destination_is_a_host_and_a_port(text: str, address: TcpAddress) -> None:
    assert parse_destination(text) == address


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("192.168.7.255", "not an address with a port"),
        ("unix:/run/x", "not a port"),
        ("192.168.7.255:0", "not a port"),
        ("ff02::1:9", "more than one colon"),
        ("[192.168.7.255]:9", "no IPv6 address between the brackets"),
        ("192.168.7.256:9", "not a host name or address"),
        (":9", "not a host name or address"),
    ],
)
def test_a_bad_destination_says_what_is_wrong_and_never_speaks_of_listening(
    text: str, what: str
) -> None:
    with pytest.raises(AddressFault) as caught:
        parse_destination(text)
    assert caught.value.what == what
    assert "unix" not in caught.value.hint
    assert "listen" not in caught.value.hint


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("http://beast.internal:13131", "http://beast.internal:13131"),
        ("http://beast.internal:13131/", "http://beast.internal:13131"),
        ("HTTPS://Box", "https://box"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://[::1]", "http://[::1]"),
        ("http://10.0.0.7", "http://10.0.0.7"),
    ],
)
def test_an_endpoint_loses_its_trailing_slash_and_nothing_else(text: str, base: str) -> None:
    assert parse_endpoint(text) == base


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("beast:13131", "the URL does not start with http:// or https://"),
        ("ftp://h", "the URL does not start with http:// or https://"),
        ("http://", "the URL has no valid host"),
        ("http://:80", "the URL has no valid host"),
        ("http://a_b.c:x", "not a port"),
        ("http://h:0", "not a port"),
        ("http://h:99999", "not a port"),
        ("http://h:1:2", "not a port"),
        ("http://[::1", "the URL has no valid host"),
        ("http://[::1]x", "the URL has no valid host"),
        ("http://[1.2.3.4]:80", "the URL has no valid host"),
        ("http://999.1.1.1", "the URL has no valid host"),
        ("http://u:p@h", "the URL holds a user name or password"),
        ("http://h/v1", "the URL has a path"),
        ("http://h/v1/", "the URL has a path"),
        ("http://h/api", "the URL has a path, query or fragment"),
        ("http://h?x=1", "the URL has a path, query or fragment"),
        ("http://h/#x", "the URL has a path, query or fragment"),
        ("http://h h", "a URL cannot hold spaces or non-ASCII characters"),
        ("http://hö", "a URL cannot hold spaces or non-ASCII characters"),
    ],
)
def test_a_bad_endpoint_says_what_is_wrong_and_what_to_write(text: str, what: str) -> None:
    with pytest.raises(AddressFault) as caught:
        parse_endpoint(text)
    assert caught.value.what == what
    assert caught.value.hint


@pytest.mark.parametrize(
    ("ours", "theirs", "clash"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80), True),
        (("localhost", 80), ("127.0.0.1", 80), True),
        (("0.0.0.0", 80), ("10.0.0.1", 80), True),
        (("::", 80), ("127.0.0.1", 80), True),
        (("Box", 80), ("box.", 80), True),
        (("127.0.0.1", 80), ("127.0.0.2", 80), False),
        (("127.0.0.1", 80), ("127.0.0.1", 81), False),
        (("127.0.0.1", 0), ("127.0.0.1", 0), False),
    ],
)
def test_two_listeners_clash_on_one_port_of_one_host_unless_it_is_port_0(
    ours: tuple[str, int], theirs: tuple[str, int], clash: bool
) -> None:
    assert TcpAddress(*ours).clashes_with(TcpAddress(*theirs)) is clash
    assert TcpAddress(*theirs).clashes_with(TcpAddress(*ours)) is clash


def test_only_loopback_addresses_are_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.9", "localhost", "::1")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "box")] == [False] * 4
