"""What could go wrong between the tasks: calls, cancellation, syncs, and the order of a request."""

from tests.mutants.layers import (
    CAPS,
    COMMITTING,
    DESK,
    FOUND,
    FOUND_IN_CORE,
    INBOX,
    PIPELINE,
    SYNC_THREAD,
    TASK,
    TASKS,
)
from tests.mutants.mutant import of_file

MUTANTS = (
    *of_file(
        "cortexd/ledger/calls.py",
        TASKS,
        (
            "who is cancelled while the ledger decides never hears of the grant",
            "trio.lowlevel.Abort.SUCCEEDED if may_go else trio.lowlevel.Abort.FAILED",
            "trio.lowlevel.Abort.SUCCEEDED",
        ),
    ),
    *of_file(
        "cortexd/ledger/calls.py",
        TASK,
        (
            "a call is answered twice",
            "        if not self._is_answered:\n            self._down = LedgerDown(reason)",
            "        if True:\n            self._down = LedgerDown(reason)",
        ),
        (
            "who asks a dead ledger gets an empty answer",
            "        if self._down is not None:\n            raise self._down\n",
            "",
        ),
    ),
    *of_file(
        "cortexd/ledger/desk.py",
        TASKS,
        (
            "leaving a reservation settles nothing",
            "                self._inbox.leave(call)",
            "                pass",
        ),
        (
            "whoever is cancelled after the grant releases everything",
            "cost = charge(self.bound, self.ending, dispatched=self.dispatched)",
            "cost = charge(self.bound, self.ending, dispatched=self.dispatched and error is None)",
        ),
    ),
    *of_file(
        "cortexd/ledger/desk.py",
        (DESK, TASK),
        (
            "entering a reservation is a checkpoint",
            "        return self\n\n    async def __aexit__(",
            "        await trio.lowlevel.checkpoint()\n"
            "        return self\n\n    async def __aexit__(",
        ),
        (
            "any number of calls wait for the ledger",
            "        if self._calls >= self._calls_max:",
            "        if False:",
        ),
        (
            "places among the waiting calls are never given back",
            "            self._calls -= 1",
            "            pass",
        ),
        (
            "a clamped reservation keeps the output that was asked for",
            "    if tokens >= bound.total:",
            "    if True:",
        ),
        (
            "a clamped output is paid for once, however many choices",
            "output_tokens = (tokens - bound.prompt_tokens) // bound.choices",
            "output_tokens = tokens - bound.prompt_tokens",
        ),
        (
            "a ledger that is down makes leaving a reservation fail",
            "            except LedgerDown:\n                return None",
            "            except LedgerDown:\n                raise",
        ),
    ),
    *of_file(
        "cortexd/ledger/desk.py",
        (INBOX, COMMITTING),
        (
            "a reservation that is left twice is charged twice, it says",
            "        if self.charge is not None:\n            return None\n",
            "",
        ),
        (
            "an overrun is told before anybody knows that the disk has it",
            "                if cost.overrun:",
            "                if False:",
        ),
        (
            "an overrun that was lost is told",
            "            await call.answered()\n            self.charge = call.charge",
            "            self.charge = call.charge\n            await call.answered()",
        ),
    ),
    *of_file(
        "cortexd/ledger/task.py",
        (TASKS, TASK),
        (
            "a reservation is granted before the disk has it",
            "        self._commit(entries, waiting=call)\n"
            "        standings = accounts.standings(call.scopes, now_ms)\n"
            "        call.prepare(",
            "        self._commit(entries)\n"
            "        standings = accounts.standings(call.scopes, now_ms)\n"
            "        call.answer(",
        ),
        (
            "a cancelled ledger task forgets what it was told",
            "with trio.CancelScope(shield=True), contextlib.ExitStack()",
            "with trio.CancelScope(shield=False), contextlib.ExitStack()",
        ),
        (
            "the ledger ends with entries that are not durable",
            "return inbox.is_closed and inbox.is_empty and self._committer.is_at_rest",
            "return inbox.is_closed and inbox.is_empty",
        ),
    ),
    *of_file(
        "cortexd/ledger/task.py",
        (TASK, COMMITTING, FOUND),
        (
            "a full disk refuses nothing",
            "        if not self._has_room:\n            call.fail(",
            "        if False:\n            call.fail(",
        ),
        (
            "an overrun is answered before it is durable",
            "        if reply.overrun:",
            "        if False:",
        ),
        (
            "a civil period begins after the charges of the turn that begins it",
            "        self._commit(journal.accounts.roll(",
            "        self._charge_ghosts(now_ms)\n        self._commit(journal.accounts.roll(",
        ),
        (
            "ghosts are never charged",
            "        self._charge_ghosts(now_ms)\n",
            "",
        ),
        (
            "ghosts are charged only when somebody calls",
            "        if deadline_ms is not None:",
            "        if False:",
        ),
        (
            "those who wait when the ledger fails never hear of it",
            "        self._committer.abandon(reason)",
            "        pass",
        ),
        (
            "a turn takes every call there is",
            "self._inbox.take(CALLS_PER_TURN)",
            "self._inbox.take(10**9)",
        ),
        (
            "civil periods never begin while the daemon runs",
            "        self._commit(journal.accounts.roll(",
            "        tuple(journal.accounts.roll(",
        ),
        (
            "calls that were taken when the ledger fails are never answered",
            "        for call in self._calls:\n            call.fail(reason)\n",
            "",
        ),
    ),
    *of_file(
        "cortexd/ledger/committing.py",
        (TASKS, TASK),
        (
            "answers go out when the sync begins",
            "        self._flight = _Flight(self._batch.waiting, now)\n"
            "        self._batch.waiting = []",
            "        for call in self._batch.waiting:\n"
            "            call.deliver()\n"
            "        self._flight = _Flight([], now)\n        self._batch.waiting = []",
        ),
        (
            "a sync that failed is taken for one that did not",
            "        if flight.error is not None:\n            raise flight.error\n",
            "",
        ),
        (
            "those who wait for a sync are not told",
            "        for call in flight.waiting:\n            call.deliver()",
            "        for call in flight.waiting[1:]:\n            call.deliver()",
        ),
    ),
    *of_file(
        "cortexd/ledger/committing.py",
        (COMMITTING, TASK),
        (
            "entries that nobody waits for are never synced",
            "(unsynced and (closing or now >= self._sync_by))",
            "(unsynced and closing)",
        ),
        (
            "the last entries are not synced at the end",
            "(unsynced and (closing or now >= self._sync_by))",
            "(unsynced and now >= self._sync_by)",
        ),
        (
            "the watermark of a quiet ledger is never written",
            "        if now >= self._mark_at:\n            self._mark()\n",
            "",
        ),
        (
            "a full segment goes on",
            "            rolls = self._journal.roll_is_due()",
            "            rolls = False",
        ),
        (
            "a moved wall clock is noticed only when something is written",
            "            rolls = self._journal.wall_was_moved()",
            "            rolls = False",
        ),
        (
            "two syncs are under way at once",
            "        if self._flight is not None:\n"
            "            self._report_slow(self._flight, now)\n"
            "            return\n",
            "        if self._flight is not None:\n"
            "            self._report_slow(self._flight, now)\n",
        ),
        (
            "a slow sync is never reported",
            "        flight.was_reported = True\n",
            "        flight.was_reported = True\n        return\n",
        ),
    ),
    *of_file(
        "cortexd/ledger/committing.py",
        (COMMITTING, INBOX),
        (
            "who sleeps says that it comes back",
            "return self._flight is not None or self._sync_by < math.inf",
            "return True",
        ),
        (
            "what was left during a sync waits for longer than it may",
            "self._sync_by = max(now, flight.started + SYNC_WITHIN_SECONDS)",
            "self._sync_by = now + SYNC_WITHIN_SECONDS",
        ),
    ),
    *of_file(
        "cortexd/ledger/inbox.py",
        (TASK, INBOX, COMMITTING, FOUND),
        (
            "a call that the ledger has taken is taken back",
            "        if call.is_taken:\n            return False",
            "        if call.is_taken:\n            return True",
        ),
        (
            "a call that was taken back is taken all the same",
            " if not call.was_taken_back]",
            "]",
        ),
        (
            "what was asked is decided before what was settled earlier",
            "[*self._left, call]",
            "[call, *self._left]",
        ),
        (
            "a settlement in no letter is never taken",
            "        if not self._letters:\n            taken",
            "        if False:\n            taken",
        ),
        (
            "a call that nobody has taken is not taken back",
            "        return True",
            "        return False",
        ),
        (
            "a settlement wakes nobody",
            "        if not self.comes_back_soon:",
            "        if False:",
        ),
        (
            "what is asked of a ledger that is down waits for ever",
            'nobody takes it."""\n        if self.is_closed:',
            'nobody takes it."""\n        if False:',
        ),
        (
            "calls beyond those of one turn are forgotten",
            "            self._letters -= 1\n",
            "            self._letters = 0\n",
        ),
        (
            "the youngest calls are taken first",
            "            taken += self._receive.receive_nowait()",
            "            taken[:0] = self._receive.receive_nowait()",
        ),
        (
            "calls that wait when the ledger fails are never answered",
            "        for call in self.take(math.inf):\n            call.fail(reason)\n",
            "",
        ),
        (
            "closing does not wake who sleeps",
            "        self._send.close()\n        self.wake()\n",
            "        self._send.close()\n",
        ),
    ),
    *of_file(
        "cortexd/ledger/sync_thread.py",
        (SYNC_THREAD, FOUND),
        (
            "what goes wrong in the sync thread is lost",
            "                raised = error",
            "                raised = None",
        ),
        (
            "a hanging disk holds up the end of the process",
            "daemon=True",
            "daemon=False",
        ),
        (
            "the thread stays when its ledger is closed",
            "        self._jobs.put(None)",
            "        pass",
        ),
    ),
    *of_file(
        "cortexd/gateway/pipeline.py",
        (CAPS, PIPELINE, FOUND_IN_CORE),
        (
            "a request that is over its cap goes on without a reservation",
            "        if isinstance(granted, Refused):\n            outlook.refused = granted",
            "        if isinstance(granted, Refused):\n"
            "            return unjournalled(ceiling)\n"
            "            outlook.refused = granted",
        ),
        (
            "a ledger that is down is no reason to refuse",
            "            if not self._serves_without_ledger(principal):",
            "            if False:",
        ),
        (
            "a capped key is served without a ledger",
            "wanted = self._settings.serve_uncapped and not principal.limited",
            "wanted = self._settings.serve_uncapped",
        ),
        (
            "a busy ledger is taken for one that is down",
            'return wanted and self._desk.condition != "ok"',
            "return wanted",
        ),
        (
            "a neuron is told what was asked, not what was reserved",
            "            output_tokens = granted.bound.output_tokens\n",
            "            output_tokens = bounded.ceiling.output_tokens\n",
        ),
        (
            "the last bytes go out before the settlement",
            "                outcome = await relay.run(wanted, self._traffic, granted)\n",
            "                outcome = await relay.run(wanted, self._traffic, granted)\n"
            "                if isinstance(outcome, LastBytes):\n"
            "                    await client.finish(outcome.data)\n"
            "                    outcome = None\n",
        ),
        (
            "nobody tells the reservation how it ended",
            "                granted.ending = relay.ending",
            "                pass",
        ),
        (
            "a neuron is told the client's own limit",
            "            output_tokens = granted.bound.output_tokens\n",
            "            output_tokens = asked.output_requested or 10**6\n",
        ),
    ),
    *of_file(
        "cortexd/gateway/learning.py",
        PIPELINE,
        (
            "what a template adds is never learned",
            "return added if beyond > 0 and added <= most else 0",
            "return 0",
        ),
        (
            "a neuron that lies about its template locks the model",
            "return added if beyond > 0 and added <= most else 0",
            "return added if beyond > 0 else 0",
        ),
        (
            "tools teach as much as texts do",
            "most = BESIDE_TOOLS_TOKENS_MAX if asked.prompt.tools_bytes else TEMPLATE_TOKENS_MAX",
            "most = TEMPLATE_TOKENS_MAX",
        ),
        (
            "images teach the template",
            "usage is None or asked.prompt.has_media or not (asked.prompts and asked.teaches)",
            "usage is None or not (asked.prompts and asked.teaches)",
        ),
        (
            "a client's own words teach the template",
            "not (asked.prompts and asked.teaches)",
            "not asked.prompts",
        ),
    ),
    *of_file(
        "cortexd/gateway/neuron_headers.py",
        PIPELINE,
        (
            "a key reaches a neuron",
            "        return principal.neuron_headers",
            '        key = (b"authorization", head.headers.get(b"authorization", b"-"))\n'
            "        return HeaderLines(principal.neuron_headers + header_lines((key,)))",
        ),
    ),
)
