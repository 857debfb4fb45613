"""The whole list."""

from tests.mutants import (
    of_caps,
    of_checks,
    of_gateway,
    of_journal,
    of_money,
    of_reading,
    of_surfaces,
    of_tasks,
)

MUTANTS = (
    *of_caps.MUTANTS,
    *of_journal.MUTANTS,
    *of_tasks.MUTANTS,
    *of_money.MUTANTS,
    *of_checks.MUTANTS,
    *of_gateway.MUTANTS,
    *of_reading.MUTANTS,
    *of_surfaces.MUTANTS,
)
