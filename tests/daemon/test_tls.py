"""Whom cortexd believes to be a neuron, over TLS."""

import ssl
from contextlib import aclosing
from pathlib import Path

import pytest
import trustme

from cortexd.config.schema import Config, Gateway
from cortexd.daemon.tls import TlsProblem, neuron_pool
from cortexd.deadlines import Deadlines
from cortexd.fleet.pool import NeuronUnreachable
from tests.fleet.scripted import answering, ask, ok, scripted, whole


def trusting(certificate: Path | None) -> Config:
    """A configuration with this authority for neurons."""
    return Config(gateway=Gateway(neuron_ca=None if certificate is None else str(certificate)))


async def test_a_neuron_of_the_operators_own_authority_is_trusted_and_of_no_other(
    tmp_path: Path, deadlines: Deadlines
) -> None:
    ours, strangers = trustme.CA(), trustme.CA()
    for name, authority in (("ours.pem", ours), ("strangers.pem", strangers)):
        authority.cert_pem.write_to_path(str(tmp_path / name))
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.issue_cert("localhost").configure_cert(served)
    for file in (None, "strangers.pem", "ours.pem"):
        async with (
            scripted(answering(ok(b"hello")), tls=served) as neuron,
            aclosing(
                neuron_pool(trusting(None if file is None else tmp_path / file), deadlines)
            ) as pool,
        ):
            if file == "ours.pem":
                assert await whole(await ask(pool, neuron.url)) == b"hello"
            else:
                with pytest.raises(NeuronUnreachable, match="not trusted"):
                    await ask(pool, neuron.url)


def test_an_authority_that_went_away_since_the_configuration_was_read_is_named(
    tmp_path: Path,
) -> None:
    with pytest.raises(TlsProblem, match=r"gateway\.neuron_ca: .*gone\.pem cannot be used"):
        neuron_pool(trusting(tmp_path / "gone.pem"), Deadlines())
