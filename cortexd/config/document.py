"""YAML text -> plain data, and the line of every path in it. The only user of PyYAML.

Owns what YAML may cost: nodes, nesting and what aliases unfold to are bounded, so that no file can
eat the machine. Refuses what a configuration has no use for: tags, names that are not plain text,
control characters, the same name twice, numbers that are not what they look like. Knows no setting
(convert.py). Nothing of the text is repeated in a problem except names that look like settings.

The parser is libyaml where PyYAML has it (ten times faster), PyYAML's own otherwise; both feed the
same composer, and the bounds sit there, before any recursion goes deep.
"""

import re
from typing import TYPE_CHECKING, Final

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cortexd.config.problems import Place, Report, join, may_be_shown

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES_MAX: Final = 100_000
DEPTH_MAX: Final = 32


class Broken:
    """Stands where a value was, once its problem has been reported."""


BROKEN: Final = Broken()


class ScalarFault(Exception):
    """A value is not what it looks like: `what` is wrong, and a `hint`. Repeats nothing of it."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


class _Refused(Exception):
    """The document as a whole is not acceptable: (line or None, what, hint)."""

    def __init__(self, line: int | None, what: str, hint: str) -> None:
        super().__init__(what)
        self.line, self.what, self.hint = line, what, hint


class _BoundedComposer(Composer):
    """PyYAML's composer with an end to it."""

    nodes = 0
    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[attr-defined]  # a parser is mixed in below
        line = event.start_mark.line + 1
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise _Refused(line, f"more than {NODES_MAX} values", "this cannot be a configuration")
        if self.depth >= DEPTH_MAX:
            raise _Refused(line, f"nested deeper than {DEPTH_MAX} levels", "check the brackets")
        if getattr(event, "tag", None) is not None:
            raise _Refused(line, "a YAML tag (!name)", "quote a value that starts with !")
        self.depth += 1
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class PlainLoader(_BoundedComposer, yaml.SafeLoader):
    """PyYAML's safe loader, bounded."""


if yaml.__with_libyaml__:

    class FastLoader(_BoundedComposer, yaml.CSafeLoader):
        """PyYAML's safe loader over libyaml, bounded."""

        def __init__(self, text: str) -> None:
            yaml.CSafeLoader.__init__(self, text)
            Composer.__init__(self)

    DEFAULT_LOADER: type[PlainLoader | FastLoader] = FastLoader
else:  # pragma: no cover  # the tests name PlainLoader
    DEFAULT_LOADER = PlainLoader


def read_document(
    text: str,
    report: Report,
    loader_type: "type[yaml.SafeLoader | yaml.CSafeLoader]" = DEFAULT_LOADER,
) -> object:
    """The document as dicts, lists and scalars (None when empty), its lines noted in the report.

    Problems go to the report; what they spoil is BROKEN. Names are always text, as written.
    """
    try:
        loader = loader_type(text)
        root = loader.get_single_node()
        return None if root is None else _Unfolding(loader, report).value(root, "", 0)
    except _Refused as refused:
        _refuse(report, refused.line, refused.what, refused.hint)
    except yaml.reader.ReaderError:
        what = "a character that YAML does not allow"
        _refuse(report, _line_of_odd(text), what, "look for control characters")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        _refuse(report, line, f"not YAML: {_cause(error)}", _SYNTAX_HINT)
    return BROKEN


def read_scalar(text: str) -> object:
    """A value as YAML would understand it when written without quotes (an environment variable).

    Raises ScalarFault.
    """
    loader = PlainLoader("")
    tag = loader.resolve(ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return _scalar(loader, ScalarNode(tag, text))


def _line_of_odd(text: str) -> int | None:
    """The line of the first character that YAML does not allow."""
    odd = yaml.reader.Reader.NON_PRINTABLE.search(text)
    return None if odd is None else text.count("\n", 0, odd.start()) + 1


_SYNTAX_HINT = (
    "check the indentation, and quote values that start with [ { * & ! % @ or a backquote"
)

_OCTAL = re.compile(r"[-+]?0[0-7_]+")

_CAUSES = (
    ("undefined alias", "a value starts with * (an alias), and nothing has that anchor"),
    ("duplicate anchor", "the same anchor (&name) twice"),
    ("single document", "a second document starts here"),
    ("cannot start any token", "a tab where spaces must be, or a sign that no value starts with"),
    ("expected ',' or", "a bracket that is never closed"),
    ("expected key", "the indentation does not fit the lines above"),
    ("mapping values are not allowed", "a colon where none can be"),
    ("':'", "a name without a colon after it"),
    ("could not find expected", "a name without a colon after it"),
    ("block end", "the indentation does not fit the lines above"),
    ("unexpected end of stream", "a quote that is never closed"),
)


def _cause(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's complaint in words that repeat nothing of the text (it may be a secret)."""
    complaint = f"{error.context or ''} {error.problem or ''}"
    return next((ours for theirs, ours in _CAUSES if theirs in complaint), "its syntax is broken")


def _refuse(report: Report, line: int | None, what: str, hint: str) -> None:
    report.places["$"] = Place(report.source, line)
    report.add("", what, hint, at="$")


class _Unfolding:
    """Nodes -> data. Every visit counts, through aliases and merges too, so a bomb stays small."""

    def __init__(self, loader: "yaml.SafeLoader | yaml.CSafeLoader", report: Report) -> None:
        self.loader = loader
        self.report = report
        self.visits = 0

    def value(self, node: Node, where: str, depth: int) -> object:
        self.count(node, depth)
        match node:
            case MappingNode():
                return self.mapping(node, where, depth)
            case SequenceNode():
                items: list[object] = []
                for index, item in enumerate(node.value):
                    path = f"{where}[{index}]"
                    self.note(path, item)
                    items.append(self.value(item, path, depth + 1))
                return items
            case _:
                return self.scalar(node, where)

    def count(self, node: Node, depth: int) -> None:
        self.visits += 1
        if self.visits > NODES_MAX or depth > DEPTH_MAX:
            line = node.start_mark.line + 1
            raise _Refused(line, "aliases (*name) that unfold to too much", "write the values out")

    def note(self, path: str, node: Node) -> None:
        place = Place(self.report.source, node.start_mark.line + 1)
        self.report.places.setdefault(
            path, place
        )  # what is merged in does not move what is written

    def mapping(self, node: MappingNode, where: str, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for name_node, value_node in node.value:
            if name_node.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.name(name_node, where)
            path = join(where, name)
            if name in found:
                shown = name if may_be_shown(name) else "a name"
                self.report.places["$"] = Place(self.report.source, name_node.start_mark.line + 1)
                first = self.report.place_of(path).line
                self.report.add(where, f"{shown} is here twice (first on line {first})", at="$")
                continue
            self.note(path, name_node)
            found[name] = self.value(value_node, path, depth + 1)
        for merged in self.merged(node, depth):
            for name, value in self.mapping(merged, where, depth + 1).items():
                found.setdefault(name, value)
        return found

    def merged(self, node: MappingNode, depth: int) -> "Iterator[MappingNode]":
        """The mappings that `<<` brings in, the stronger first."""
        for name_node, value_node in node.value:
            if name_node.tag != "tag:yaml.org,2002:merge":
                continue
            for source in (
                value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            ):
                self.count(source, depth)
                if not isinstance(source, MappingNode):
                    line = source.start_mark.line + 1
                    raise _Refused(line, "<< is not followed by a mapping", "use <<: *anchor")
                yield source

    def name(self, node: Node, where: str) -> str:
        if isinstance(node, ScalarNode) and node.value.isprintable():
            return str(node.value)
        line = node.start_mark.line + 1
        raise _Refused(
            line, f"a name that is not plain text{where and f' in {where}'}", _SYNTAX_HINT
        )

    def scalar(self, node: Node, where: str) -> object:
        try:
            return _scalar(self.loader, node)
        except ScalarFault as fault:
            self.report.add(where, fault.what, fault.hint)
            return BROKEN


def _scalar(loader: "yaml.SafeLoader | yaml.CSafeLoader", node: Node) -> object:
    """None, a bool, int, float, str or date; raises ScalarFault (say, a date in month 13)."""
    unreadable = ScalarFault(
        "a value with control characters, or one that YAML cannot read",
        "write it on one line, in quotes",
    )
    if not node.value.isprintable():
        raise unreadable
    if node.tag.endswith((":int", ":float")):
        _check_base(node.value)
    try:
        value: object = loader.construct_object(node)
    except (ValueError, OverflowError, yaml.YAMLError):
        raise unreadable from None
    return value


def _check_base(number: str) -> None:
    """Refuses what YAML 1.1 alone takes for a number of base 8 (0100 is 64) or 60 (1:30 is 90)."""
    if ":" in number:
        what = "a number with a colon, which YAML reads in base 60"
        raise ScalarFault(what, "write a number as in 3600, and put a text in quotes")
    if _OCTAL.fullmatch(number):
        what = "a number that starts with 0, which YAML reads in base 8"
        raise ScalarFault(what, "write a number without that 0, and put a text in quotes")
