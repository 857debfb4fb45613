"""The ledger's real code over a simulated disk, host and fleet, failed in every way there is.

Each layer is a function from a seed to a tally; one seed is one run, the same in every process.
`python -m tests.sim --help` says how to run them by the million; `test_sim.py` runs some in CI.
"""
