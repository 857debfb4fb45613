"""The official openai package, 2.x and 3.x, against the daemon: what no other SDK shows its user.

What all SDKs have in common is in test_sdks.py, judged by the same runs of the same program.
"""

from collections.abc import Callable

import pytest

from tests.whole.sdk_world import Session

pytestmark = pytest.mark.slow


@pytest.fixture(params=["openai2", "openai3"])
def session(request: pytest.FixtureRequest, session_with: Callable[[str], Session]) -> Session:
    """The script's run with one version of the package."""
    return session_with(request.param)


def test_an_answer_names_the_model_that_was_asked(session: Session) -> None:
    assert session.met["plain"]["model"] == "sim/small"


def test_a_stream_has_no_chunk_that_was_not_asked_for(session: Session) -> None:
    """Many programs read `choices[0]` of every chunk: the usage chunk has none."""
    met = session.met["streamed"]
    assert met["finish_reasons"] == [session.met["plain"]["finish_reason"]]
    assert (met["chunks_without_choices"], met["usages"]) == (0, [])


def test_a_stream_ends_with_its_usage_when_that_was_asked_for(session: Session) -> None:
    met = session.met["streamed_with_usage"]
    assert met["text"] == session.met["plain"]["text"]
    assert (met["chunks_without_choices"], met["usages"]) == (1, [15])


def test_a_refusal_has_its_code_its_type_and_the_id_that_stands_in_the_log(
    session: Session,
) -> None:
    met = session.met["over_a_balance"]
    assert (met["code"], met["type"]) == ("insufficient_quota", "insufficient_quota")
    [line] = session.requests["balance"]
    assert line["request_id"] == met["request_id"]
    assert session.met["over_a_long_window"]["code"] == "rate_limit_exceeded"
    assert session.met["wrong_key"]["code"] == "invalid_api_key"
    met = session.met["unknown_model"]
    assert (met["code"], met["param"]) == ("model_not_found", "model")
    assert session.met["broken_dying"]["code"] == "upstream_failed"


def test_the_package_says_with_each_try_which_one_it_is(session: Session) -> None:
    assert session.met["over_a_short_window"]["retries"] == [0, 1, 1]
    assert [line["sdk_retry"] for line in session.requests["short"]] == ["0", "0", "1", "0", "1"]
