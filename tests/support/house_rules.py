"""The rules of the house as functions from one source file to what is wrong with it.

Owns how a rule is checked; which files it is held against and what is exempt, with the reason,
stands in tests/test_tidy.py. Each rule takes a `Source` and gives findings, each a line that begins
with ``path:line``; no finding is good. Nothing here touches the disk, so that test_house_rules.py
can try every rule on a bad snippet.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cached_property
from pathlib import PurePosixPath

FILE_LINES_MAX = 400
TEST_FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 60

#: What a pure module never imports: anything that waits, asks the machine, or differs between runs.
IMPURE = {
    *("trio", "httpx", "hypercorn", "os", "io", "socket", "pathlib", "time", "random", "logging"),
    *("threading", "signal", "asyncio", "concurrent", "fcntl", "mmap", "multiprocessing"),
    *("secrets", "select", "selectors", "shutil", "ssl", "subprocess", "tempfile", "uuid"),
}
IMPURE_CALLS = frozenset({"open", "print", "input", "breakpoint"})

BANNED_WORDS = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "misc"})
BANNED_PREFIXES = ("handle_", "process_")
#: What a library calls the method that we have to write.
DICTATED_NAMES = {"handle_async_request"}  # httpx.AsyncBaseTransport

#: Put together from pieces, so that this file does not trip over itself.
PLACEHOLDERS = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
FOREIGN_TEXT = (
    *("/" + folder + "/" for folder in ("work", "root")),
    *("/" + folder for folder in ("tmp/brief", "opt/pypi", "opt/wheels")),
    *(".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))),
    "--index" + "-url",
    "--find" + "-links",
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[["Source"], Iterator[str]]


class Source:
    """One file of the project: its path from the root, with slashes, and its text."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    @cached_property
    def tree(self) -> ast.Module:
        """The file parsed as Python."""
        return ast.parse(self.text, self.path)

    @cached_property
    def module(self) -> str:
        """The dotted name under which Python imports it."""
        parts = PurePosixPath(self.path).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full dotted name of everything imported anywhere in the file.

        ``from a import b`` gives ``a.b``: whether b is a module or a name in one, a prefix test on
        it comes out right.
        """
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = PurePosixPath(self.path).parts[: -node.level]
                    base = ".".join([*package, base] if base else package)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)

    def finding(self, line: int, what: str) -> str:
        """A finding as every rule reports it."""
        return f"{self.path}:{line}: {what}"


def room_of(module: str) -> str:
    """The folder of the package that a module is in (``cortexd.ledger.task`` -> ``ledger``)."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def layers(may_import: Mapping[str, Set[str]], open_to_all: Mapping[str, Set[str]]) -> Rule:
    """Arrows between rooms point as ``may_import`` says (room -> rooms it may import).

    ``open_to_all`` narrows a room to a few modules for those that do not have it in ``may_import``.
    """

    def rule(source: Source) -> Iterator[str]:
        room = room_of(source.module)
        if room not in may_import:
            yield source.finding(1, f"no layer is decided for {room}")
            return
        for line, name in source.imports():
            other = room_of(name) if is_within(name, "cortexd") else ""
            if other in ("", "__version__", room) or other in may_import[room]:
                continue
            if not any(is_within(name, module) for module in open_to_all.get(room, ())):
                yield source.finding(line, f"{room or 'cortexd'} must not import {name}")

    return rule


def is_within(name: str, module: str) -> bool:
    """Whether a dotted name is a module or something in it."""
    return name == module or name.startswith(module + ".")


def purity(source: Source) -> Iterator[str]:
    """A pure module imports nothing impure, and does not open or print."""
    for line, name in source.imports():
        if name.split(".")[0] in IMPURE:
            yield source.finding(line, f"a pure module imports {name}")
    for node in ast.walk(source.tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id in IMPURE_CALLS:
            yield source.finding(called.lineno, f"a pure module calls {called.id}()")


def one_door(library: str, doors: Set[str]) -> Rule:
    """``library`` is imported in the files ``doors`` and nowhere else."""

    def rule(source: Source) -> Iterator[str]:
        for line, name in source.imports():
            if is_within(name, library) and source.path not in doors:
                yield source.finding(line, f"{library} is imported outside {sorted(doors)}")

    return rule


def imported_late(library: str) -> Rule:
    """``library`` is imported inside functions only, so that nobody else pays for it.

    Or for type checkers, who pay anyway.
    """

    def rule(source: Source) -> Iterator[str]:
        within = {
            id(inner)
            for node in ast.walk(source.tree)
            if isinstance(node, Function)
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
            for inner in ast.walk(node)
        }
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in within:
                names = [alias.name for alias in node.names]
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
                if any(is_within(name, library) for name in names):
                    yield source.finding(node.lineno, f"{library} is imported at the top")

    return rule


def file_size(source: Source) -> Iterator[str]:
    """Files stay short enough to hold one idea."""
    lines = source.text.count("\n")
    limit = TEST_FILE_LINES_MAX if source.path.startswith("tests/") else FILE_LINES_MAX
    if lines > limit:
        yield source.finding(lines, f"{lines} lines, more than {limit}")


def function_size(source: Source) -> Iterator[str]:
    """So do functions; the docstring is not counted."""
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > FUNCTION_LINES_MAX:
                yield source.finding(
                    node.lineno, f"{node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}"
                )


def names(source: Source) -> Iterator[str]:
    """No junk drawers, and no names that say that something is done but not what."""
    stem = PurePosixPath(source.path).stem
    if BANNED_WORDS & set(stem.split("_")):
        yield source.finding(1, f"{stem} says nothing about what is in the file")
    for node in ast.walk(source.tree):
        if isinstance(node, Function | ast.ClassDef):
            words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", node.name)
            if BANNED_WORDS & {word.lower() for word in words}:
                yield source.finding(node.lineno, f"{node.name} says nothing about what it is")
            vague = node.name.lstrip("_").startswith(BANNED_PREFIXES)
            if vague and node.name not in DICTATED_NAMES:
                yield source.finding(node.lineno, f"{node.name} does not say what it does")


def no_sleep(source: Source) -> Iterator[str]:
    """A test waits for what it waits for. (``trio.sleep_forever`` is not a wait but a stand-in.)"""
    naps = {"sleep", "sleep_until"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in naps:
            yield source.finding(node.lineno, f"a test uses .{node.attr}")
    for line, name in source.imports():
        if name.rpartition(".")[2] in naps:
            yield source.finding(line, f"a test imports {name}")


def no_mocks(source: Source) -> Iterator[str]:
    """Fakes that work, not mocks that are told what to say."""
    for line, name in source.imports():
        if is_within(name, "unittest.mock") or is_within(name, "pytest_mock"):
            yield source.finding(line, f"a test imports {name}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target = node.args[0] if node.args else None
            if (
                node.func.attr in ("setattr", "patch")
                and isinstance(target, ast.Constant)
                and str(target.value).startswith("cortexd")
            ):
                yield source.finding(node.lineno, f"a test patches {target.value!r}")


def broad_except(allowed: Mapping[str, int]) -> Rule:
    """No catch-all that swallows; ``allowed`` is path -> how many that file may have.

    A handler that ends by raising again swallows nothing and is free.
    """

    def rule(source: Source) -> Iterator[str]:
        found = [
            node
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ExceptHandler)
            and is_broad(node.type)
            and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)
        ]
        for node in found[allowed.get(source.path, 0) :]:
            yield source.finding(node.lineno, "catches everything")

    return rule


def is_broad(caught: ast.expr | None) -> bool:
    """Whether an except clause takes everything there is."""
    if caught is None:
        return True
    parts = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    last_words = {ast.unparse(part).rpartition(".")[2] for part in parts}
    return bool(last_words & {"Exception", "BaseException"})


def named_tasks(source: Source) -> Iterator[str]:
    """Every task has a name, because that is what a trace shows."""
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "start_soon"
            and "name" not in {keyword.arg for keyword in node.keywords}
        ):
            yield source.finding(node.lineno, "start_soon without name=")


def bounded_channels(source: Source) -> Iterator[str]:
    """No channel takes whatever comes."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and "open_memory_channel" in ast.unparse(node.func):
            size = ast.unparse(node.args[0]) if node.args else ""
            if size.replace('"', "'") in ("math.inf", "inf", "float('inf')"):
                yield source.finding(node.lineno, "a channel without a bound")


def nurseries(allowed: Set[str]) -> Rule:
    """Only the files in ``allowed`` open nurseries, and nobody keeps one in an attribute."""

    def rule(source: Source) -> Iterator[str]:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Attribute):
                continue
            if node.attr == "open_nursery" and source.path not in allowed:
                yield source.finding(node.lineno, "opens a nursery")
            if "nursery" in node.attr and isinstance(node.ctx, ast.Store):
                yield source.finding(node.lineno, "keeps a nursery in an attribute")

    return rule


def docstrings(source: Source) -> Iterator[str]:
    """Everything public says what it is; a protocol's method does so for its implementations."""
    if not source.tree.body:
        return
    if ast.get_docstring(source.tree) is None:
        yield source.finding(1, "the module has no docstring")
    promised = {
        method.name
        for protocol in source.tree.body
        if isinstance(protocol, ast.ClassDef)
        and any("Protocol" in ast.unparse(base) for base in protocol.bases)
        for method in protocol.body
        if isinstance(method, Function) and ast.get_docstring(method) is not None
    }
    yield from _undocumented(source, source.tree, promised=promised)


def _undocumented(
    source: Source, parent: ast.Module | ast.ClassDef, *, promised: Set[str]
) -> Iterator[str]:
    for node in parent.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            known = isinstance(parent, ast.ClassDef) and node.name in promised
            if ast.get_docstring(node) is None and not known and not _is_variant(node):
                yield source.finding(node.lineno, f"{node.name} has no docstring")
            if isinstance(node, ast.ClassDef):
                yield from _undocumented(source, node, promised=promised)


def _is_variant(node: Function | ast.ClassDef) -> bool:
    """An overload or a property's setter is described where the first one is."""
    return any(
        ast.unparse(decorator).rpartition(".")[2] in ("overload", "override", "setter")
        for decorator in node.decorator_list
    )


def finished_text(source: Source) -> Iterator[str]:
    """Nothing is left for later."""
    for number, line in enumerate(source.text.splitlines(), start=1):
        for word in PLACEHOLDERS:
            if re.search(rf"\b{word}\b", line):
                yield source.finding(number, f"says {word}")


def portable_text(source: Source) -> Iterator[str]:
    """No path of one machine, and no host that packages happened to come from."""
    for number, line in enumerate(source.text.splitlines(), start=1):
        for piece in FOREIGN_TEXT:
            if piece in line:
                yield source.finding(number, f"says {piece}")
