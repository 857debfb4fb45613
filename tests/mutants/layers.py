"""The layers that mutants are held against, by short names; `command_of` says how each is run.

Where ledger.md names a layer that has to find a mistake, that layer is the one that is asked, and
not a unit test that would find it sooner: the simulator has to prove itself, too.
"""

ACCOUNTS = "tests/ledger/test_accounts.py"
CHARGING = "tests/ledger/test_charging.py"
CLOCK = "tests/ledger/test_clock.py"
COMMITTING = "tests/ledger/test_committing.py"
CRASH_POINTS = "tests/ledger/test_crash_points.py"
DESK = "tests/ledger/test_desk.py"
DISK = "tests/ledger/test_disk.py"
ENTRIES = "tests/ledger/test_entries.py"
FOUND = "tests/ledger/test_found_by_mutants.py"
INVARIANTS = "tests/ledger/test_invariants.py"
JOURNAL = "tests/ledger/test_journal.py"
CAP_WINDOWS = "tests/ledger/test_cap_windows.py"
MODEL = "tests/ledger/test_accounts_model.py"
OPENING = "tests/ledger/test_opening.py"
PERIODS = "tests/ledger/test_periods.py"
RECORDS = "tests/ledger/test_records.py"
RECOVERY = "tests/ledger/test_recovery.py"
RETENTION = "tests/ledger/test_retention.py"
SEVERAL = "tests/ledger/test_several_caps.py"
SYNC_THREAD = "tests/ledger/test_sync_thread.py"
TASK = "tests/ledger/test_task.py"
WINDOWS = "tests/ledger/test_windows.py"

BOUND = "tests/dialects/test_upper_bound.py"
CAPS = "tests/gateway/test_caps.py"
FOUND_IN_CORE = "tests/gateway/test_found_by_mutants.py"
PIPELINE = "tests/gateway/test_pipeline.py"

WORLDS = "worlds 3 0"

FUZZ = "sim fuzz 0 150"
POINTS = "sim points 0 8"
LIVES = "sim lives 0 150"
MANY_LIVES = "sim lives 0 600"
ROT = "sim rot 0 4"
TASKS = "sim tasks 0 15"
