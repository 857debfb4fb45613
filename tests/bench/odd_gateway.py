"""The daemon on a disk, or with a configuration, that cannot be had by asking for it.

    python -m tests.bench.odd_gateway CONFIG [--sync-ms MS] [--more-keys KEYS]

`--sync-ms`: every fdatasync takes so much longer, as on a slow disk. `--more-keys`: so many keys
besides those of the configuration, each under a cap of its own; a file has room for some thousands
only. Otherwise as `cortexd serve`, on ports that are free.
"""

import argparse
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from cortexd.config.load import load
from cortexd.config.schema import Config, Key
from cortexd.daemon.run import DaemonSettings, serve_forever
from tests.bench.traffic import KEY

ACCOUNT = "bench"
CAP = 10**15
_PORTS = {"gateway.listen": "127.0.0.1:0", "gateway.metrics_listen": "127.0.0.1:0"}


def main(arguments: Sequence[str]) -> int:
    """Serve until told to stop; the exit code."""
    parser = argparse.ArgumentParser(prog="odd_gateway")
    parser.add_argument("config")
    parser.add_argument("--sync-ms", type=float, default=0)
    parser.add_argument("--more-keys", type=int, default=0)
    asked = parser.parse_args(arguments)
    if asked.sync_ms:
        os.fdatasync = partial(_slow_sync, os.fdatasync, asked.sync_ms / 1000)
    loaded = load(asked.config, os.environ, _PORTS)
    config = _with_keys(loaded.config, asked.more_keys)
    return serve_forever(DaemonSettings(config, loaded.catalogue, _announce))


def _slow_sync(sync: Callable[[int], None], seconds: float, file: int) -> None:
    threading.Event().wait(seconds)
    sync(file)


def _with_keys(config: Config, count: int) -> Config:
    known = config.entitlements
    more = tuple(
        Key(
            account_id=ACCOUNT,
            key_id=f"key-{number}",
            key_sha256=hashlib.sha256(f"{KEY}-{number}".encode()).hexdigest(),
            hard_cap=CAP,
        )
        for number in range(count)
    )
    keys = msgspec.structs.replace(known, keys=(*known.keys, *more))
    return msgspec.structs.replace(config, entitlements=keys)


def _announce(lines: Sequence[str]) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
