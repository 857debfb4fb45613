"""What could go wrong between an entry and the disk, and between the disk and the next start."""

from tests.mutants.layers import (
    DISK,
    ENTRIES,
    FOUND,
    JOURNAL,
    LIVES,
    OPENING,
    OTHER_FORMATS,
    POINTS,
    RECORDS,
    RECOVERY,
    RETENTION,
    ROOM,
    ROT,
)
from tests.mutants.mutant import of_file

MUTANTS = (
    *of_file(
        "cortexd/ledger/journal.py",
        POINTS,
        (
            "the watermark runs ahead of the sync",
            "        self.written += len(entries)",
            "        self.written += len(entries)\n        self.durable = self.written",
        ),
        (
            "what is written counts as durable",
            "            self._segment.sync()\n",
            "            pass\n",
        ),
        (
            "the hint promises more than is durable",
            "encode_hint(Hint(self._segment.header.seg, self.durable))",
            "encode_hint(Hint(self._segment.header.seg, self.durable + 1))",
        ),
        (
            "recovery leaves reservations that nobody owns",
            "ghosts = self.accounts.ghosts(now_ms, self._settings.grace_ms)",
            "ghosts = self.accounts.ghosts(now_ms, self._settings.grace_ms)[1:]",
        ),
        (
            "a new segment has the snapshot of the one before it",
            "self._segment = Segment.begin(self._disk, header, snapshot)",
            "self._segment = Segment.begin(self._disk, header, type(self.accounts)().dump())",
        ),
    ),
    *of_file(
        "cortexd/ledger/journal.py",
        (LIVES, JOURNAL),
        (
            "a sync that fails has moved the watermark",
            "            self._segment.sync()\n",
            "            self.durable = upto\n            self._segment.sync()\n",
        ),
        (
            "a sync is tried again after it failed",
            '            raise self._fail("syncing", error) from error',
            "            self._segment.sync()",
        ),
        (
            "a disk that failed is used again",
            "        if self._failed is not None:\n            raise self._failed\n",
            "        pass\n",
        ),
        (
            "a segment numbers its entries from its own start",
            "self.written += len(entries)",
            "self.written = len(entries)",
        ),
    ),
    *of_file(
        "cortexd/ledger/journal.py",
        (JOURNAL, ROOM),
        (
            "nothing is refused on a full disk",
            "self._room_is_low = self._missing_bytes > self._closed.history_bytes",
            "self._room_is_low = False",
        ),
        (
            "a disk with room again stays closed",
            "        if self.clock.now_ms() - self._room_measured_ms >=",
            "        if not self._room_is_low and self.clock.now_ms() - self._room_measured_ms >=",
        ),
        (
            "a disk that somebody else fills is not looked at",
            "        if self.clock.now_ms() - self._room_measured_ms >=",
            "        if self._room_is_low and self.clock.now_ms() - self._room_measured_ms >=",
        ),
        (
            "two segments need not fit",
            "max(self._settings.room_bytes_min, 2 * self._settings.segment_bytes_max)",
            "self._settings.room_bytes_min",
        ),
        (
            "history stays while callers are refused",
            "self._room_is_low = self._missing_bytes > self._closed.history_bytes",
            "self._room_is_low = self._missing_bytes > 0",
        ),
        (
            "history is room, and is never removed for it",
            "            self._make_room(_REMOVED_AT_ROLL_MAX)\n",
            "            pass\n",
        ),
        (
            "a start on a full disk leaves its history alone",
            "        self._make_room(_REMOVED_AT_START_MAX)\n",
            "",
        ),
        (
            "history goes for room that is there already",
            "            self._missing_bytes -= removed.size_bytes\n",
            "",
        ),
        (
            "a segment grows for ever",
            "            or self.clock.now_ms() - self._segment.header.lt "
            ">= self._settings.segment_ms_max\n",
            "",
        ),
        (
            "a moved wall clock begins no segment",
            "return moved_ms > WALL_STEP_MS and now_ms - header.lt >= _STEP_ROLL_MS",
            "return False",
        ),
        (
            "a segment names the digest of none",
            "self._header(self._segment.header.seg + 1, self._segment.digest())",
            'self._header(self._segment.header.seg + 1, "")',
        ),
        (
            "the caps of the configuration are not enforced",
            "entries: list[Entry] = [*ghosts, *configured]",
            "entries: list[Entry] = [*ghosts]",
        ),
    ),
    *of_file(
        "cortexd/ledger/segment.py",
        POINTS,
        (
            "the directory is not synced",
            "            disk.sync_directory()\n",
            "",
        ),
        (
            "a snapshot gets its name before it is synced",
            "            disk.sync(file)\n            disk.rename(name + TEMPORARY_SUFFIX, name)",
            "            disk.rename(name + TEMPORARY_SUFFIX, name)",
        ),
        (
            "a short write is taken for a whole one",
            "        data = data[taken:]",
            '        data = b""',
        ),
        (
            "a segment is written under its final name",
            "            disk.rename(name + TEMPORARY_SUFFIX, name)\n",
            "",
        ),
        (
            "a write error is ignored",
            "        taken = disk.write(file, data)",
            "        try:\n"
            "            taken = disk.write(file, data)\n"
            "        except OSError:\n"
            "            return",
        ),
    ),
    *of_file(
        "cortexd/ledger/segment.py",
        (JOURNAL, FOUND),
        (
            "somebody else's newer segment is not noticed",
            "if present and present[-1] >= header.seg:",
            "if present and present[-1] == header.seg:",
        ),
        (
            "the digest leaves out what was appended",
            "        self._hash.update(lines)\n",
            "",
        ),
        (
            "a segment does not know its size",
            "        self.size_bytes += len(lines)\n",
            "",
        ),
    ),
    *of_file(
        "cortexd/ledger/records.py",
        (POINTS, ROT),
        (
            "an entry says of itself that it is durable",
            "+ _PLACE % (n, durable_n)",
            "+ _PLACE % (n, n)",
        ),
        (
            "a line proves itself",
            "if hashed.hexdigest().encode() != checksum or not payload:",
            "if not payload:",
        ),
    ),
    *of_file(
        "cortexd/ledger/records.py",
        (RECORDS, RECOVERY, FOUND),
        (
            "lines of another segment prove themselves",
            "keyed_copy = blake2b(digest_size=8, key=salt).copy",
            'keyed_copy = blake2b(digest_size=8, key=b"").copy',
        ),
        (
            "lines behind one that is not proven are taken",
            "not payload:\n                break",
            "not payload:\n                continue",
        ),
        (
            "nothing is proven by its checksum",
            "hexdigest().encode() != checksum or not payload:",
            "hexdigest().encode() != checksum:",
        ),
        (
            "a line whose number is another is taken for the first of a batch",
            "if len(front) == len(payload) or not digits",
            "if not digits",
        ),
        (
            "a watermark is anything",
            " or not digits.isdigit() or end[-1:]",
            " or end[-1:]",
        ),
        ("an entry ends as it likes", ' or end[-1:] != b"}":', ":"),
        (
            "all batches carry the watermark of the first",
            "            durable_n = int(digits)",
            "            durable_n = durable_n or int(digits)",
        ),
        (
            "one strange line makes all before it strange",
            "entries = []  # one of them is unknown, maybe not the first",
            "raise Misread from None",
        ),
        (
            "a line may hold two entries",
            "if len(entries) == len(fronts):",
            "if entries:",
        ),
        (
            "an entry is taken whatever its number",
            "if place is None or place.n != n:",
            "if place is None:",
        ),
        (
            "a newer format is read as this one",
            "        if found.fmt != FORMAT:",
            "        if found.fmt < FORMAT:",
        ),
        (
            "an older format is read as this one",
            "        if found.fmt != FORMAT:",
            "        if found.fmt > FORMAT:",
        ),
        (
            "the separator is one bit from NUL",
            '_LINE = b"%s\\t%s\\n"',
            '_LINE = b"%s %s\\n"',
        ),
        (
            "a rotten hint is believed",
            '    payload = proven(data.rstrip(b" \\n"), _HINT_SALT)',
            '    payload = data[17:].rstrip(b" \\n")',
        ),
        (
            "the boot id brings bytes of its own",
            "boot=_quoted(header.boot), sw=",
            "boot=header.boot, sw=",
        ),
    ),
    *of_file(
        "cortexd/ledger/entries.py",
        (ENTRIES, FOUND),
        (
            "spaces get into the journal",
            'return quote(name, safe=safe, errors="surrogatepass")',
            'return quote(name, safe=safe + " ", errors="surrogatepass")',
        ),
        (
            "at signs get into the journal",
            '_quoted(model, safe="/:"))',
            '_quoted(model, safe="/:@"))',
        ),
        (
            "a request id is as long as a client likes",
            "return _quoted(request_id[:REQUEST_LABEL_LENGTH_MAX])[:REQUEST_LABEL_LENGTH_MAX]",
            "return _quoted(request_id)",
        ),
    ),
    *of_file(
        "cortexd/ledger/recovery.py",
        (ROT, RECOVERY),
        (
            "the watermark is ignored",
            "if watermark is not None and watermark > self.n:",
            "if False:",
        ),
        (
            "any tail is torn",
            'if b"\\0" in tail or not tail.endswith(b"\\n"):',
            "if True:",
        ),
        (
            "the hint is ignored",
            "if self._hint is not None and not self._is_within(self._hint):",
            "if False:",
        ),
        (
            "a hint of a newer segment is ignored",
            "return hint.seg < self._seg or (",
            "return hint.seg != self._seg or (",
        ),
        (
            "a hint of this segment is ignored",
            "hint.seg == self._seg and hint.n <= self.n)",
            "hint.seg == self._seg)",
        ),
        (
            "the first bad line's own watermark is ignored",
            'for line in tail.split(b"\\n"))',
            'for line in tail.split(b"\\n")[1:])',
        ),
        (
            "entries that are out of order are replayed",
            "found = run_of(self._prove(lines), given.n + 1)",
            "payloads = self._prove(lines)\n"
            "        place = place_of(payloads[0]) if payloads else None\n"
            "        found = run_of(payloads, place.n if place else 0)",
        ),
    ),
    *of_file(
        "cortexd/ledger/recovery.py",
        (POINTS, RECOVERY),
        (
            "a torn tail is damage",
            'if b"\\0" in tail or not tail.endswith(b"\\n"):',
            "if False:",
        ),
        (
            "a tail with a hole in it is damage",
            'if b"\\0" in tail or not tail.endswith(b"\\n"):',
            'if not tail.endswith(b"\\n"):',
        ),
        (
            "a hint that is as good as it can be is a reason to refuse",
            "hint.n <= self.n)",
            "hint.n < self.n)",
        ),
    ),
    *of_file(
        "cortexd/ledger/recovery.py",
        RECOVERY,
        (
            "a last line without its line feed is dropped",
            "return [data[begin:-1]]",
            "return []",
        ),
        (
            "a line that is longer than those that are read together is the last",
            '            end = data.find(b"\\n", begin)\n        if',
            "            end = -1\n        if",
        ),
        (
            "an entry is good before it was judged",
            "in enumerate(entries):",
            "in enumerate(entries, 1):",
        ),
        (
            "the last entry of those that are read together is read again",
            "            self._good = len(entries)\n",
            "",
        ),
        (
            "an entry that cannot have happened is skipped",
            "            raise reading.corrupt(str(error)) from error",
            "            continue",
        ),
    ),
    *of_file(
        "cortexd/ledger/opening.py",
        OTHER_FORMATS,
        (
            "a ledger of another version is damaged",
            "    except OtherFormat as error:\n        raise foreign(file, error) from error\n",
            "",
        ),
        (
            "an old ledger is told to wait for a newer version",
            "_OLDER if error.fmt < FORMAT else _NEWER",
            "_NEWER",
        ),
    ),
    *of_file(
        "cortexd/ledger/opening.py",
        (ROT, OPENING, FOUND),
        (
            "who has one segment is promised another",
            "    hint = _OPTIONS_OF_THE_ONLY_ONE if is_only else _OPTIONS",
            "    hint = _OPTIONS",
        ),
        (
            "a directory with a hint and no segment begins anew",
            "        if hint is not None:\n            raise all_lost(hint, where=where)\n",
            "",
        ),
        (
            "a file under another segment's name is read",
            "    if recovered.header.seg != numbers[-1]:",
            "    if False:",
        ),
        (
            "an older segment is read",
            "data = disk.read(segment_name(numbers[-1]))",
            "data = disk.read(segment_name(numbers[0]))",
        ),
        (
            "the digest leaves out the last byte",
            "previous_digest=digest(data),",
            "previous_digest=digest(data[:-1]),",
        ),
    ),
    *of_file(
        "cortexd/ledger/opening.py",
        (LIVES, OPENING),
        (
            "ledger time goes back to the start of the segment",
            "newest_ms = max(header.lt, newest_entry_ms)",
            "newest_ms = header.lt",
        ),
        (
            "the wall clock of the last entry is that of the header",
            "wall_ms=header.wall + newest_ms - header.lt,",
            "wall_ms=header.wall,",
        ),
    ),
    *of_file(
        "cortexd/ledger/opening.py",
        (POINTS, OPENING),
        (
            "unfinished segments stay",
            "            disk.remove(name)",
            "            pass",
        ),
    ),
    *of_file(
        "cortexd/ledger/disk.py",
        (DISK, FOUND),
        (
            "two daemons open one ledger",
            "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
            "fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        ),
        (
            "a file of somebody else is appended to",
            "os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC",
            "os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC",
        ),
        (
            "everybody may read the ledger",
            "return os.open(name, flags, 0o600, dir_fd=self._directory)",
            "return os.open(name, flags, 0o644, dir_fd=self._directory)",
        ),
        (
            "a directory of somebody else is used",
            "if owner != os.geteuid():",
            "if False:",
        ),
        (
            "room for the superuser counts as room",
            "room.f_bavail * room.f_frsize",
            "room.f_bfree * room.f_frsize",
        ),
    ),
    *of_file(
        "cortexd/ledger/retention.py",
        (RETENTION, ROOM),
        (
            "the predecessor of the newest segment goes",
            "while len(numbers) < at_most and len(self._closed) > 1 and is_wanted(",
            "while len(numbers) < at_most and self._closed and is_wanted(",
        ),
        (
            "a turn removes as many segments as there are",
            "while len(numbers) < at_most and len(self._closed) > 1 and is_wanted(",
            "while len(self._closed) > 1 and is_wanted(",
        ),
        (
            "history goes although it cannot make enough room",
            "        if self.history_bytes < missing_bytes:\n"
            "            return Removed((), 0, None)\n",
            "",
        ),
        (
            "more history goes than makes room",
            "return self._remove_while(lambda freed_bytes: freed_bytes < missing_bytes, at_most)",
            "return self._remove_while(lambda _: True, at_most)",
        ),
        (
            "the predecessor of the newest segment is room",
            "return self.size_bytes - self._closed[-1].size_bytes",
            "return self.size_bytes",
        ),
        (
            "a segment that cannot be removed is room",
            "                self._is_stuck = True\n",
            "",
        ),
        (
            "history is kept one segment too long",
            "if keep.size_bytes and self.size_bytes + newest.size_bytes > keep.size_bytes:",
            "if keep.size_bytes and self.size_bytes > keep.size_bytes:",
        ),
        (
            "no limit is a limit of nothing",
            "return bool(keep.age_ms) and now_ms",
            "return now_ms",
        ),
        (
            "a removal is not made durable",
            "            self._disk.sync_directory()\n",
            "",
        ),
    ),
)
