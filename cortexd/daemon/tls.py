"""The two sides of TLS: what clients are shown, and whom neurons are believed.

Owns both contexts. The files were tried when the configuration was read; they may have changed.
"""

import ssl

from cortexd.config.schema import Config
from cortexd.deadlines import Deadlines
from cortexd.fleet.pool import Pool


class TlsProblem(Exception):
    """Certificates that cannot be used; the message says which and why."""


def server_tls(config: Config) -> ssl.SSLContext | None:
    """The server's TLS: 1.2 and up, h2 or HTTP/1.1 by ALPN; None: plain. Raises TlsProblem."""
    tls = config.gateway.tls
    if tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.private_key)
    except (OSError, ssl.SSLError) as error:
        raise TlsProblem(
            f"gateway.tls: {tls.certificate} and {tls.private_key} are no usable pair: {error}. "
            "Give a PEM certificate chain and its unencrypted private key"
        ) from error
    return context


def neuron_pool(config: Config, deadlines: Deadlines) -> Pool:
    """The connections to neurons; the system's authorities are trusted, and the operator's own.

    Raises TlsProblem.
    """
    own = config.gateway.neuron_ca
    context = None
    if own is not None:
        context = ssl.create_default_context()
        try:
            context.load_verify_locations(cafile=own)
        except (OSError, ssl.SSLError) as error:
            raise TlsProblem(
                f"gateway.neuron_ca: {own} cannot be used: {error}. "
                "Give the certificate of your own authority, in PEM format"
            ) from error
    return Pool(deadlines, connect_seconds=config.gateway.connect_seconds, ssl_context=context)
