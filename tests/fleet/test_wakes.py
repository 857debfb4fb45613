"""Which sleeping hosts get a packet, how often, and when nobody counts on them any more."""

from cortexd.fleet.view import NeuronName
from cortexd.fleet.wakes import AGAIN_MS, GIVE_UP_MS, Wakes

N, OTHER = NeuronName("n"), NeuronName("other")


def test_a_host_without_an_address_is_not_counted_on() -> None:
    assert Wakes([N]).want([OTHER], 0) == ([], None)


def test_a_packet_is_sent_at_once_and_again_after_a_while() -> None:
    wakes = Wakes([N])
    assert wakes.want([N], 0) == ([N], AGAIN_MS)
    assert wakes.want([N], AGAIN_MS - 1) == ([], AGAIN_MS)
    assert wakes.want([N], AGAIN_MS) == ([N], 2 * AGAIN_MS)


def test_a_host_that_does_not_hear_is_given_up_and_tried_again_as_much_later() -> None:
    wakes = Wakes([N])
    wakes.want([N], 0)
    assert wakes.want([N], GIVE_UP_MS) == ([], None)
    assert wakes.want([N], 2 * GIVE_UP_MS - 1) == ([], None)
    assert wakes.want([N], 2 * GIVE_UP_MS) == ([N], 2 * GIVE_UP_MS + AGAIN_MS)


def test_of_several_hosts_the_next_packet_says_when_to_ask_again() -> None:
    wakes = Wakes([N, OTHER])
    wakes.want([N], 0)
    assert wakes.want([OTHER, N], 4_000) == ([OTHER], AGAIN_MS)
    assert wakes.want([N, OTHER], 5_000) == ([], AGAIN_MS)


def test_a_host_that_woke_is_woken_anew_the_next_time_it_sleeps() -> None:
    wakes = Wakes([N])
    wakes.want([N], 0)
    wakes.awake(N)
    assert wakes.want([N], GIVE_UP_MS) == ([N], GIVE_UP_MS + AGAIN_MS)
