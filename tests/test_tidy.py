"""The house is as architecture.md and style.md say: every rule, held against every file.

The tables here are the decisions: which room may import which, which modules do I/O, which
exceptions there are and why. To change one is to change the architecture, so do it in the same
commit. How a rule is checked, and that it bites, is in support/house_rules.py and
support/test_house_rules.py.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support import house_rules
from tests.support.house_rules import Rule, Source

ROOT = Path(__file__).resolve().parent.parent

_CORE = {"dialects", "config", "ledger", "fleet", "metrics", "finished", "deadlines"}
#: Room -> the rooms it may import besides itself. Arrows point down only.
MAY_IMPORT = {
    "__main__": {"cli"},
    "cli": {"daemon", "demo", "gateway", *_CORE},
    "daemon": {"gateway", "demo", *_CORE},
    "demo": set(_CORE),
    "gateway": {"ledger", "fleet", "metrics", "finished", "dialects", "deadlines"},
    # metrics and the struct of a finished request lie on top of the two rooms they tell about.
    "metrics": {"ledger", "fleet", "finished", "dialects"},
    "finished": {"ledger", "fleet", "dialects"},
    "ledger": {"dialects"},
    "fleet": {"dialects", "deadlines"},
    "dialects": set[str](),
    "deadlines": set[str](),
    "config": set[str](),
    "": set[str](),
}
#: Of config, these rooms know what was said, not how it was read.
_SCHEMA = {"cortexd.config.schema"}
OPEN_TO = dict.fromkeys(("gateway", "metrics", "ledger", "fleet"), _SCHEMA)

#: Every module that does I/O, waits, or asks for the time; all others are pure.
IO_MODULES = {
    "cortexd/__main__.py",
    "cortexd/cli/*.py",
    "cortexd/daemon/*.py",
    "cortexd/demo/*.py",
    "cortexd/deadlines.py",
    "cortexd/config/load.py",
    "cortexd/config/files.py",
    "cortexd/ledger/clock.py",
    "cortexd/ledger/disk.py",
    "cortexd/ledger/journal.py",
    "cortexd/ledger/journal_log.py",
    "cortexd/ledger/sync_thread.py",
    "cortexd/ledger/calls.py",
    "cortexd/ledger/committing.py",
    "cortexd/ledger/inbox.py",
    "cortexd/ledger/task.py",
    "cortexd/ledger/desk.py",
    "cortexd/fleet/pool.py",
    "cortexd/fleet/pump.py",
    "cortexd/fleet/link.py",
    "cortexd/fleet/neuron.py",
    "cortexd/fleet/engines/controls.py",
    "cortexd/fleet/engines/neuron.py",
    "cortexd/fleet/poller.py",
    "cortexd/fleet/loader.py",
    "cortexd/fleet/traffic.py",
    "cortexd/fleet/wake.py",
    "cortexd/gateway/pipeline.py",
    "cortexd/gateway/counting.py",
    "cortexd/gateway/relay.py",
    "cortexd/gateway/out.py",
    "cortexd/gateway/progress.py",
    "cortexd/gateway/asgi.py",
    "cortexd/gateway/hang_ups.py",
    "cortexd/gateway/heartbeats.py",
    "cortexd/gateway/http1.py",
    "cortexd/gateway/http1_wire.py",
    "cortexd/gateway/request_ids.py",
}

#: Library -> the files it may be imported in, so that replacing one is one file.
DOORS = {
    "httpx": {"cortexd/fleet/neuron.py", "cortexd/fleet/pool.py"},
    "hypercorn": {"cortexd/daemon/hypercorn_connection.py"},
    "yaml": {"cortexd/config/document.py"},
    "prometheus_client": {
        "cortexd/metrics/instruments.py",
        "cortexd/metrics/tallies.py",
        "cortexd/metrics/fleet.py",
        "cortexd/metrics/ledger.py",
        "cortexd/metrics/fleet_gauges.py",
        "cortexd/metrics/budget_gauges.py",
    },
}

#: Where catching everything is right, how often, and why.
BROAD_EXCEPT = {
    # The one catch-all of a request: a 500, a counter, a settled reservation.
    "cortexd/gateway/pipeline.py": 1,
    # A heartbeat is written by a task of all streams: what it raises ends its own stream alone.
    "cortexd/gateway/heartbeats.py": 1,
    # A piece is passed on by a task of all streams: what that raises is raised in its own task.
    "cortexd/fleet/pump.py": 1,
    # What one client's connection does must not end the daemon: counted and logged.
    "cortexd/daemon/http_server.py": 1,
    # The end of the process: logged once, exit code 1.
    "cortexd/daemon/run.py": 1,
    # A thread cannot raise into the task that waits for it; it hands over whatever it was.
    "cortexd/ledger/sync_thread.py": 1,
}

#: What an idle daemon does without, for its memory and for the time until it serves
#: (tests/whole/test_idle_daemon.py looks at what a real one has loaded).
LATE = {
    "rich",  # for terminals
    "cortexd.daemon.hypercorn_connection",  # for whoever speaks HTTP/2
    "zoneinfo",  # for caps that follow the calendar of a place
    "difflib",  # for settings that are misspelt
}

#: Who owns tasks (architecture.md 3.1), and whose.
NURSERIES = {
    "cortexd/daemon/run.py",  # the daemon's
    "cortexd/daemon/http_server.py",  # the connections'
    "cortexd/daemon/hypercorn_connection.py",  # one connection's reading and its protocol
    "cortexd/fleet/traffic.py",  # loads and unloads, whoever waits for them
    "cortexd/gateway/heartbeats.py",  # heartbeats that are being written, of any stream
    "cortexd/gateway/hang_ups.py",  # the hang-up watcher of one request over TLS or ASGI
    "cortexd/deadlines.py",  # the watching of clocks, where no daemon does it
    "cortexd/demo/neuron.py",  # a simulated neuron is a whole server
    "cortexd/demo/http.py",
    "cortexd/demo/loads.py",
}


def _ignored() -> list[str]:
    lines = (ROOT / ".gitignore").read_text().split()
    return [".git", *(line.rstrip("/") for line in lines)]


def _files(folder: Path = ROOT, ignored: tuple[str, ...] = tuple(_ignored())) -> Iterable[Path]:
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in ignored):
            continue
        if path.is_dir():
            yield from _files(path, ignored)
        else:
            yield path


SOURCES = [Source(path.relative_to(ROOT).as_posix(), path.read_text()) for path in _files()]
PYTHON = [source for source in SOURCES if source.path.endswith(".py")]
CODE = [source for source in PYTHON if source.path.startswith("cortexd/")]
TESTS = [source for source in PYTHON if source.path.startswith("tests/")]
PACKAGING = [source for source in PYTHON if source.path.startswith("packaging/")]
PURE = [
    source for source in CODE if not any(fnmatch(source.path, pattern) for pattern in IO_MODULES)
]

RULES = [
    pytest.param(house_rules.layers(MAY_IMPORT, OPEN_TO), CODE, id="layers"),
    pytest.param(house_rules.purity, PURE, id="purity"),
    *(
        pytest.param(house_rules.one_door(library, doors), CODE, id=f"one door for {library}")
        for library, doors in DOORS.items()
    ),
    *(
        pytest.param(house_rules.imported_late(name), CODE, id=f"{name} is imported late")
        for name in sorted(LATE)
    ),
    pytest.param(house_rules.file_size, PYTHON, id="file size"),
    pytest.param(house_rules.function_size, CODE + PACKAGING, id="function size"),
    pytest.param(house_rules.names, PYTHON, id="names"),
    pytest.param(house_rules.no_sleep, TESTS, id="no sleep in tests"),
    pytest.param(house_rules.no_mocks, TESTS, id="no mocks of our own"),
    pytest.param(house_rules.broad_except(BROAD_EXCEPT), CODE, id="no broad except"),
    pytest.param(house_rules.named_tasks, CODE, id="tasks have names"),
    pytest.param(house_rules.bounded_channels, PYTHON, id="channels are bounded"),
    pytest.param(house_rules.nurseries(NURSERIES), CODE, id="nurseries have owners"),
    pytest.param(house_rules.docstrings, CODE + PACKAGING, id="docstrings"),
    pytest.param(house_rules.finished_text, SOURCES, id="nothing left for later"),
    pytest.param(house_rules.portable_text, SOURCES, id="no foreign paths or hosts"),
]


@pytest.mark.parametrize(("rule", "sources"), RULES)
def test_every_file_keeps_the_rule(rule: Rule, sources: list[Source]) -> None:
    assert sources, "a rule that is held against no file"
    findings = [finding for source in sources for finding in rule(source)]
    assert not findings, "\n".join(["", *findings])


def test_the_list_of_io_modules_names_only_what_exists() -> None:
    paths = [source.path for source in CODE]
    stale = [
        pattern for pattern in sorted(IO_MODULES) if not any(fnmatch(p, pattern) for p in paths)
    ]
    assert not stale


def test_the_list_of_io_modules_names_only_what_does_io() -> None:
    """A pure module on the list could turn impure without anybody noticing."""
    single = {entry for entry in IO_MODULES if "*" not in entry and "__main__" not in entry}
    idle = [s.path for s in CODE if s.path in single and not any(house_rules.purity(s))]
    assert not idle


def test_the_exceptions_name_only_what_exists() -> None:
    paths = {source.path for source in CODE}
    named = {*BROAD_EXCEPT, *NURSERIES}.union(*DOORS.values())
    assert not named - paths


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_no_two_rooms_know_each_other(room: str) -> None:
    assert not [other for other in MAY_IMPORT[room] if room in MAY_IMPORT.get(other, set())]
