"""The endpoint table."""

import pytest

from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.gateway.endpoints import ENDPOINTS, EndpointKind, Match, find


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: row.path)
def test_every_row_is_found_by_its_own_path_and_methods(endpoint: object) -> None:
    for row in ENDPOINTS:
        path = row.path.replace("*", "org/model")
        for method in row.methods:
            match = find(method, path)
            assert isinstance(match, Match)
            assert match.endpoint is row


def test_a_model_id_may_hold_slashes() -> None:
    match = find("GET", "/v1/models/Qwen/Qwen3-8B")
    assert isinstance(match, Match)
    assert (match.endpoint.kind, match.argument) == (EndpointKind.MODEL, "Qwen/Qwen3-8B")


def test_a_trailing_slash_is_forgiven() -> None:
    match = find("POST", "/v1/chat/completions/")
    assert isinstance(match, Match)
    assert match.endpoint.path == "/v1/chat/completions"


@pytest.mark.parametrize("path", ["/v1/nope", "/v1", "/metrics", "//", "/v1/load_lora_adapter"])
def test_an_unknown_path_is_a_404_and_never_goes_to_a_neuron(path: str) -> None:
    refusal = find("POST", path)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.UNKNOWN_URL


def test_a_wrong_method_is_a_405_that_names_the_right_ones() -> None:
    refusal = find("GET", "/v1/chat/completions")
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.allowed_methods) == (RefusalKind.METHOD_NOT_ALLOWED, ("POST",))
    assert "use POST" in refusal.message


def test_only_health_and_the_root_need_no_key() -> None:
    assert {row.path for row in ENDPOINTS if row.public} == {"/health", "/"}
