"""Which URLs are addresses of neurons, and what a neuron's own address means from here."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.fleet.addresses import address_of, reachable_from_here, without_version_path


@pytest.mark.parametrize(
    ("url", "origin", "host_header", "prefix"),
    [
        ("http://beast:13131", "http://beast:13131", "beast:13131", ""),
        ("http://beast", "http://beast:80", "beast", ""),
        ("https://beast/", "https://beast:443", "beast", ""),
        ("https://beast:80/a/b/", "https://beast:80", "beast:80", "/a/b"),
        ("HTTP://Beast:80/", "http://beast:80", "beast", ""),
        ("http://[::1]:8080", "http://[::1]:8080", "[::1]:8080", ""),
        ("http://[fe80::1%eth0]:8080", "http://[fe80::1]:8080", "[fe80::1]:8080", ""),
    ],
)
def test_a_base_url_is_taken_apart(url: str, origin: str, host_header: str, prefix: str) -> None:
    address = address_of(url)
    assert (address.origin, address.host_header, address.prefix) == (origin, host_header, prefix)


def test_an_ipv6_address_is_connected_to_without_its_brackets_and_with_its_zone() -> None:
    assert address_of("http://[fe80::1%eth0]:8080").host == "fe80::1%eth0"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "beast:13131",
        "ftp://beast",
        "http://",
        "http://:80",
        "http://be ast",
        "http://beast\r\n:80",
        "http://user@beast",
        "http://:secret@beast",
        "http://beast?x",
        "http://beast/#x",
        "http://beast?",
        "http://beast:99999",
        "http://beast:0",
        "http://beast:x",
        "http://bäst",
        "http://be%20ast",
        "http://[::1",
        "http://[zz::1]",
        "http://[v1.fe]",
        "http://" + "a" * 3000,
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        address_of(url)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("http://localhost:13131", "http://beast.internal:13131"),
        ("http://localhost:8001/", "http://beast.internal:8001"),
        ("http://LOCALHOST.:8001/v/", "http://beast.internal:8001/v"),
        ("https://127.0.0.1", "https://beast.internal"),
        ("http://127.9.9.9:1", "http://beast.internal:1"),
        ("http://0.0.0.0:13131", "http://beast.internal:13131"),
        ("http://[::]:13131", "http://beast.internal:13131"),
        ("http://[::1]:13131", "http://beast.internal:13131"),
        ("http://[::ffff:127.0.0.1]:13131", "http://beast.internal:13131"),
        ("http://beast.localhost:5", "http://beast.internal:5"),
        ("http://10.0.0.7:13131/", "http://10.0.0.7:13131"),
        ("http://[2001:db8::1]:5", "http://[2001:db8::1]:5"),
        ("http://localhost.example:5", "http://localhost.example:5"),
    ],
)
def test_a_neuron_that_says_localhost_means_its_own_host(said: str, meant: str) -> None:
    assert reachable_from_here(said, configured="http://beast.internal:13131/") == meant


def test_an_ipv6_endpoint_takes_the_place_of_localhost_with_its_brackets() -> None:
    said = reachable_from_here("http://localhost:5", configured="http://[2001:db8::1]:13131")
    assert said == "http://[2001:db8::1]:5"


@pytest.mark.parametrize(
    "endpoint", ["http://a:1", "http://a:1/", "http://a:1/v1", "http://a:1/v1/"]
)
def test_an_endpoint_written_with_v1_is_used_without_it(endpoint: str) -> None:
    assert without_version_path(endpoint) == "http://a:1"


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=40).map(lambda text: "http://" + text) | st.text(max_size=40))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    try:
        address = address_of(text)
    except ValueError:
        return
    assert address_of(address.url).origin == address.origin
    assert reachable_from_here(text, configured="http://beast:1")
