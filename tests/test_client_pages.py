"""The manual's page for each client: the snippets are those that are printed, the errors real."""

import re

import pytest

from cortexd.cli.clients.snippet import Wanted
from cortexd.cli.clients.table import CLIENTS
from cortexd.gateway.budget import over_cap
from cortexd.ledger.cap_windows import BALANCE
from cortexd.ledger.entries import Refused, Standing, key_scope
from tests.test_manual import CLIENT_PAGES, MANUAL, blocks, without_blocks

WANTED = Wanted("http://127.0.0.1:31313", None, "CORTEXD_API_KEY", "small", 32768, 4096)
HEADINGS = [
    "What works",
    "When the budget is used up",
    "Traps",
    "What cortexd does for it",
]
PAGES = {path.stem: path.read_text() for path in CLIENT_PAGES}


def test_every_client_has_a_page_and_every_page_a_client() -> None:
    assert set(PAGES) == set(CLIENTS)
    linked = re.findall(r"\]\(clients/([a-z-]+)\.md\)", (MANUAL / "clients.md").read_text())
    assert linked == list(CLIENTS)


@pytest.mark.parametrize("client", PAGES)
def test_a_page_says_the_same_things_in_the_same_order(client: str) -> None:
    headings = re.findall(r"^## (.*)$", without_blocks(PAGES[client]), re.MULTILINE)
    assert headings == HEADINGS


@pytest.mark.parametrize("client", PAGES)
def test_a_page_shows_the_snippets_that_are_printed(client: str) -> None:
    for snippet in CLIENTS[client].snippets(WANTED):
        assert snippet.text in blocks(PAGES[client], snippet.language), snippet.where
        assert snippet.where.lower() in PAGES[client].lower()


RECORDED = {
    client: re.findall(r"Token budget of key [^\"\n]*", page) for client, page in PAGES.items()
}


@pytest.mark.parametrize("client", [client for client, found in RECORDED.items() if found])
def test_a_recorded_refusal_says_what_cortexd_says(client: str) -> None:
    for message in RECORDED[client]:
        cap, spent, reserved, left, asked = map(int, re.findall(r"\d+(?= )|\d+(?=\.)", message))
        assert spent + reserved + left == cap < spent + asked
        balance = Standing(key_scope("laptop"), cap, BALANCE, spent, reserved, None)
        refusal = over_cap(Refused(balance, asked, None, exact=False), wall_ms=0)
        assert message == refusal.message


def test_some_refusals_are_recorded() -> None:
    assert sum(map(len, RECORDED.values())) >= 4
