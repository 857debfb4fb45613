"""What could go wrong where a ledger is read, checked and shown, offline."""

from tests.mutants.layers import (
    EXPORT,
    FOUND_OFFLINE,
    INVARIANTS,
    OTHER_FORMATS,
    READING,
    SHOW,
    VERIFY,
    VERIFYING,
)
from tests.mutants.mutant import of_file

MUTANTS = (
    *of_file(
        "cortexd/ledger/reading.py",
        (READING, VERIFYING, OTHER_FORMATS),
        (
            "the hint is read after the names",
            "    return Files(hint, tuple(numbers))",
            "    hint = decode_hint(folder.read(HINT_NAME)) if hint else None\n"
            "    return Files(hint, tuple(numbers))",
        ),
        (
            "a segment that somebody lost was too old",
            "    if left and number < left[0]:",
            "    if left:",
        ),
        (
            "a segment that was too old is missing",
            "    if left and number < left[0]:",
            "    if False:",
        ),
        (
            "a disk that does not give a segment has none",
            "    if not isinstance(error, FileNotFoundError):",
            "    if False:",
        ),
        (
            "the loss of every segment is a ledger that never was",
            "        if files.hint is not None:\n"
            "            raise all_lost(files.hint, where=where)\n",
            "",
        ),
        (
            "an older segment is shown",
            "    number = files.numbers[-1]",
            "    number = files.numbers[0]",
        ),
        (
            "a span leaves out its first moment",
            "                if line.entry.t >= since_ms:",
            "                if line.entry.t > since_ms:",
        ),
        (
            "a span has one moment too many",
            "                if until_ms is not None and line.entry.t >= until_ms:",
            "                if until_ms is not None and line.entry.t > until_ms:",
        ),
        (
            "a span begins with the first segment that begins in it",
            "        if header is not None and header.lt < since_ms:\n            return index",
            "        if header is not None and header.lt < since_ms:\n            return index + 1",
        ),
        (
            "every segment is read whatever the span",
            "        if header is not None and header.lt < since_ms:",
            "        if False and header is not None:",
        ),
        (
            "what a reservation was is forgotten with its segment",
            "in _lines(reading, {hold.reservation_id: _made(hold) for hold in holds}):",
            "in _lines(reading, {}):",
        ),
        (
            "damage in a segment is not told",
            "            found(Finding(name, str(error), error.line, error.offset))",
            "            pass",
        ),
        (
            "damage behind the last good entry is not told",
            "            reading.rest()\n",
            "",
        ),
        (
            "a segment of another version is damage",
            "        except OtherFormat as error:\n"
            '            raise foreign(f"{where}/{name}", error) from error\n',
            "",
        ),
    ),
    *of_file(
        "cortexd/ledger/verifying.py",
        (VERIFYING, OTHER_FORMATS, INVARIANTS),
        (
            "sums are not added up at a segment's end",
            "            check_accounts(accounts)",
            "            pass",
        ),
        (
            "a history is followed for ever",
            "or self._followed >= self._followed_max:",
            "or False:",
        ),
        (
            "a snapshot may say what it likes",
            "                check_same(self._end, snapshot)",
            "                pass",
        ),
        (
            "entries are not held against the invariants",
            "                follow(entry)\n",
            "",
        ),
        (
            "entries may claim to be durable",
            "                check_place(place, reading.place)\n",
            "",
        ),
        (
            "what follows the last good entry is not judged",
            "            torn = reading.rest()\n",
            "",
        ),
        (
            "nobody looks how segments hang together",
            "            self.findings += check_chain([self._previous, facts])",
            "            pass",
        ),
        (
            "a first segment may have a past",
            "        if number == 1 and (header.n or header.prev):",
            "        if False:",
        ),
        (
            "a file under another segment's name is sound",
            "            if header.seg != number:",
            "            if False:",
        ),
        (
            "a misnamed newest segment is told in other words than a start has",
            "                replay(data, hint)  #",
            "                pass  #",
        ),
        (
            "the loss of every segment is no fault",
            "    if not files.numbers and files.hint is not None:",
            "    if False and files.hint is not None:",
        ),
        (
            "a segment that cannot be read is no fault",
            "            if obstacle is not None:\n"
            "                inspection.findings.append(obstacle)\n",
            "",
        ),
        (
            "what is behind a hole has to follow what was before it",
            "        self._previous = self._end = self._history = None",
            "        pass",
        ),
        (
            "the hint is held against every segment",
            "inspection.inspect(number, data, files.hint if is_newest else None,",
            "inspection.inspect(number, data, files.hint,",
        ),
        (
            "the hint is held against none",
            "inspection.inspect(number, data, files.hint if is_newest else None,",
            "inspection.inspect(number, data, None,",
        ),
        (
            "a missing hint is not worth a word",
            "    if files.numbers and files.hint is None:",
            "    if False:",
        ),
        (
            "damage of the newest segment is told as lost history",
            "        if is_newest:\n            refusal",
            "        if False:\n            refusal",
        ),
        (
            "the only segment is told to go back to another",
            "is_only=self._is_only)",
            "is_only=False)",
        ),
        (
            "findings come in the order of their finding",
            "findings=tuple(sorted(self.findings, key=_place_in_files)),",
            "findings=tuple(self.findings),",
        ),
        (
            "a segment of another version is a bug of ours",
            '            raise foreign(f"{where}/{name}", error) from error',
            "            raise",
        ),
    ),
    *of_file(
        "cortexd/cli/ledger_verify.py",
        VERIFY,
        (
            "a broken ledger is fine to a shell",
            "    return 0 if _is_good(verdict) else 1",
            "    return 0",
        ),
        (
            "an empty directory is a sound ledger",
            "    return verdict.is_sound and verdict.segments is not None",
            "    return verdict.is_sound",
        ),
        (
            "notices are told as faults",
            'end = "ok: sound" if not count else',
            'end = "ok: sound" if not count + len(notices) else',
        ),
        (
            "nobody is told what to do",
            '    hint = f". {finding.hint}" if finding.hint else ""',
            '    hint = ""',
        ),
    ),
    *of_file(
        "cortexd/cli/ledger.py",
        VERIFY,
        (
            "a ledger that serve would refuse is fine to a shell",
            '        print(f"cortexd ledger: {problem}", file=sys.stderr)\n        return 1',
            '        print(f"cortexd ledger: {problem}", file=sys.stderr)\n        return 0',
        ),
        (
            "a bad configuration is a failure like any other",
            "        return error.exit_code",
            "        return 1",
        ),
    ),
    *of_file(
        "cortexd/cli/ledger_directory.py",
        (VERIFY, SHOW, EXPORT),
        (
            "a file is read to its first megabyte",
            "            while piece := os.read(file, _READ_BYTES):\n"
            "                pieces.append(piece)",
            "            pieces.append(os.read(file, 1 << 10))",
        ),
        (
            "an error of a file is told without its name",
            "            error.filename = name  #",
            "            pass  #",
        ),
        (
            "the environment's directory is not looked at",
            "        return os.path.abspath(named) if named else default",
            "        return default",
        ),
        (
            "milliseconds are lost in a time",
            'return f"{_iso_second(ledger_ms // 1000)}.{ledger_ms % 1000:03d}Z"',
            'return f"{_iso_second(ledger_ms // 1000)}.000Z"',
        ),
    ),
    *of_file(
        "cortexd/cli/ledger_show.py",
        (SHOW, FOUND_OFFLINE, VERIFY),
        (
            "what left a window since the last entry still counts",
            "now_ms = max(accounts.now_ms, clock_after(recovered.header, "
            "accounts.now_ms).now_ms())",
            "now_ms = accounts.now_ms",
        ),
        (
            "what a dead process left behind is shown as open",
            "for r in reservations if r.ghost_until_ms is None),",
            "for r in reservations),",
        ),
        (
            "what a running process holds is shown as unresolved",
            "for r in reservations if r.ghost_until_ms is not None\n",
            "for r in reservations\n",
        ),
        (
            "a shadow is shown as a cap",
            "        shadow=standing.shadow,",
            "        shadow=False,",
        ),
        (
            "an empty directory is an empty ledger",
            'raise Unreadable(f"{directory.path}: there is no ledger here", 1)',
            'raise Unreadable(f"{directory.path}: there is no ledger here", 0)',
        ),
    ),
    *of_file(
        "cortexd/cli/ledger_export.py",
        (EXPORT, FOUND_OFFLINE),
        (
            "of key and account either is enough",
            "if not wanted or wanted <= _scopes_of(line)",
            "if not wanted or wanted & _scopes_of(line)",
        ),
        (
            "damage is no failure",
            "    return 1 if damage else 0",
            "    return 0",
        ),
        (
            "a day ago is an hour ago",
            '    "d": datetime.timedelta(days=1),',
            '    "d": datetime.timedelta(hours=1),',
        ),
        (
            "a moment without a zone is one of UTC",
            "        return found.astimezone()  #",
            "        return found.replace(tzinfo=found.tzinfo or datetime.UTC)  #",
        ),
        (
            "a close does not say what was reserved",
            "return held.rid, *_names(held.w), held.a",
            "return held.rid, *_names(held.w), None",
        ),
        (
            "a limit concerns nobody",
            "            return frozenset((line.entry.s,))",
            "            return frozenset()",
        ),
        (
            "the charge and its parts change places",
            "paid = (entry.a, entry.p, entry.o, entry.y)",
            "paid = (entry.a, entry.o, entry.p, entry.y)",
        ),
    ),
)
