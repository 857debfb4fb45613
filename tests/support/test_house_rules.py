"""No rule of the house is toothless: each finds what it forbids, and nothing in what it allows."""

import pytest

from tests.support import house_rules as rules
from tests.support.house_rules import Rule, Source

LAYERS = rules.layers(
    {"cli": {"ledger"}, "ledger": set(), "fleet": set(), "config": set()},
    {"fleet": {"cortexd.config.schema"}},
)
LONG_FUNCTION = "def f() -> None:\n" + "    x = 1\n" * 61
DOCUMENTED_FUNCTION = 'def f() -> None:\n    """' + "\n" * 80 + '    """\n' + "    x = 1\n" * 60
PROTOCOL = "'''a'''\nclass A(Protocol):\n    '''b'''\n    def f(self):\n        '''c'''\n"

BAD = [
    (LAYERS, "cortexd/ledger/a.py", "import cortexd.fleet.view"),
    (LAYERS, "cortexd/ledger/a.py", "from cortexd import fleet"),
    (LAYERS, "cortexd/ledger/a.py", "from cortexd.fleet import view"),
    (LAYERS, "cortexd/ledger/a.py", "from ..fleet import view"),
    (LAYERS, "cortexd/ledger/a.py", "def f():\n    from cortexd.cli.main import main"),
    (LAYERS, "cortexd/ledger/a.py", "from cortexd.config.schema import Config"),
    (LAYERS, "cortexd/fleet/a.py", "from cortexd.config.load import load"),
    (LAYERS, "cortexd/attic/a.py", ""),
    (rules.purity, "cortexd/a.py", "import os"),
    (rules.purity, "cortexd/a.py", "from os.path import join"),
    (rules.purity, "cortexd/a.py", "def f():\n    import time"),
    (rules.purity, "cortexd/a.py", "text = open('a')"),
    (rules.one_door("yaml", {"cortexd/b.py"}), "cortexd/a.py", "from yaml import safe_load"),
    (rules.imported_late("rich"), "cortexd/a.py", "import rich.table"),
    (rules.imported_late("rich"), "cortexd/a.py", "from rich.table import Table"),
    (rules.imported_late("rich"), "cortexd/a.py", "if x:\n    import rich"),
    (rules.imported_late("cortexd.b"), "cortexd/a.py", "from cortexd.b import c"),
    (rules.file_size, "cortexd/a.py", "\n" * 401),
    (rules.file_size, "tests/a.py", "\n" * 701),
    (rules.function_size, "cortexd/a.py", LONG_FUNCTION),
    (rules.function_size, "cortexd/a.py", "async " + LONG_FUNCTION),
    (rules.names, "cortexd/string_utils.py", ""),
    (rules.names, "cortexd/a.py", "class KeyManager: ..."),
    (rules.names, "cortexd/a.py", "def common(): ..."),
    (rules.names, "cortexd/a.py", "async def _handle_request(): ..."),
    (rules.names, "cortexd/a.py", "def process_line(): ..."),
    (rules.no_sleep, "tests/a.py", "trio.sl" + "eep(1)"),
    (rules.no_sleep, "tests/a.py", "from time import sl" + "eep as nap"),
    (rules.no_sleep, "tests/a.py", "await trio.sl" + "eep_until(1)"),
    (rules.no_mocks, "tests/a.py", "from unittest.mock import Mock"),
    (rules.no_mocks, "tests/a.py", "monkeypatch.setattr('cortexd.ledger.clock.now', 1)"),
    (rules.broad_except({}), "cortexd/a.py", "try: ...\nexcept Exception: ..."),
    (rules.broad_except({}), "cortexd/a.py", "try: ...\nexcept (OSError, BaseException): ..."),
    (rules.broad_except({}), "cortexd/a.py", "try: ...\nexcept: ..."),
    (
        rules.broad_except({}),
        "cortexd/a.py",
        "try: ...\nexcept Exception as e:\n    raise X from e",
    ),
    (rules.broad_except({"b": 1}), "cortexd/a.py", "try: ...\nexcept builtins.Exception: ..."),
    (rules.named_tasks, "cortexd/a.py", "nursery.start_soon(f, 1)"),
    (rules.bounded_channels, "cortexd/a.py", "trio.open_memory_channel(math.inf)"),
    (rules.bounded_channels, "cortexd/a.py", "trio.open_memory_channel[int](float('inf'))"),
    (rules.nurseries({"b"}), "cortexd/a.py", "async with trio.open_nursery() as n: ..."),
    (rules.nurseries({"cortexd/a.py"}), "cortexd/a.py", "self._nursery = n"),
    (rules.docstrings, "cortexd/a.py", "x = 1"),
    (rules.docstrings, "cortexd/a.py", "'''a'''\ndef f(): ..."),
    (rules.docstrings, "cortexd/a.py", "'''a'''\nclass A: ..."),
    (
        rules.docstrings,
        "cortexd/a.py",
        "'''a'''\nclass A:\n    '''b'''\n    async def f(self): ...",
    ),
    (rules.docstrings, "cortexd/a.py", PROTOCOL + "def f(): ..."),
    (rules.finished_text, "README.md", "a\n# TO" + "DO: b"),
    (rules.finished_text, "README.md", "FIX" + "ME"),
    (rules.portable_text, "Makefile", "cd /ro" + "ot/a"),
    (rules.portable_text, "Makefile", "see files.python" + "hosted.org"),
    (rules.portable_text, "Makefile", "pip install --index" + "-url=x"),
]

GOOD = [
    (LAYERS, "cortexd/ledger/a.py", "from cortexd.ledger.b import c\nfrom . import d\nimport json"),
    (LAYERS, "cortexd/ledger/a.py", "from cortexd import __version__"),
    (LAYERS, "cortexd/cli/a.py", "from cortexd.ledger.b import c"),
    (LAYERS, "cortexd/fleet/a.py", "from cortexd.config.schema import Config"),
    (rules.purity, "cortexd/a.py", "import json, hashlib\nfrom collections import abc"),
    (rules.one_door("yaml", {"cortexd/a.py"}), "cortexd/a.py", "import yaml"),
    (rules.imported_late("rich"), "cortexd/a.py", "def f():\n    from rich.table import Table"),
    (rules.imported_late("rich"), "cortexd/a.py", "if TYPE_CHECKING:\n    import rich"),
    (rules.file_size, "cortexd/a.py", "\n" * 400),
    (rules.function_size, "cortexd/a.py", DOCUMENTED_FUNCTION),
    (rules.names, "cortexd/a.py", "def handles(): ...\n@asynccontextmanager\ndef f(): ..."),
    (rules.no_sleep, "tests/a.py", "await trio.sleep_forever()"),
    (rules.no_mocks, "tests/a.py", "monkeypatch.setattr(sys, 'argv', [])"),
    (rules.broad_except({}), "cortexd/a.py", "try: ...\nexcept BaseException:\n    f()\n    raise"),
    (rules.broad_except({"cortexd/a.py": 1}), "cortexd/a.py", "try: ...\nexcept Exception: ..."),
    (rules.broad_except({}), "cortexd/a.py", "try: ...\nexcept ZipException: ..."),
    (rules.named_tasks, "cortexd/a.py", "nursery.start_soon(f, 1, name='poll')"),
    (rules.bounded_channels, "cortexd/a.py", "trio.open_memory_channel(0)"),
    (rules.nurseries({"cortexd/a.py"}), "cortexd/a.py", "async with trio.open_nursery() as n: ..."),
    (rules.docstrings, "cortexd/a.py", ""),
    (rules.docstrings, "cortexd/a.py", "'''a'''\nclass _A: ...\ndef _f(): ..."),
    (rules.docstrings, "cortexd/a.py", "'''a'''\n@typing.overload\ndef f(): ..."),
    (rules.docstrings, "cortexd/a.py", PROTOCOL + "class B:\n    '''b'''\n    def f(self): ..."),
    (rules.finished_text, "README.md", "we are done"),
    (rules.portable_text, "Makefile", "cd /var/lib/cortexd"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_a_rule_finds_what_it_forbids(rule: Rule, path: str, text: str) -> None:
    findings = list(rule(Source(path, text)))
    assert findings
    assert all(finding.startswith(f"{path}:") for finding in findings)


@pytest.mark.parametrize(("rule", "path", "text"), GOOD)
def test_a_rule_leaves_alone_what_it_allows(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_a_file_that_may_catch_everything_once_may_not_do_it_twice() -> None:
    twice = "try: ...\nexcept Exception: ...\ntry: ...\nexcept Exception: ..."
    assert len(list(rules.broad_except({"a.py": 1})(Source("a.py", twice)))) == 1
