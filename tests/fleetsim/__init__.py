"""The fleet's state machine over simulated neurons, clients and operators, in virtual time.

One seed is one run, the same in every process. `python -m tests.fleetsim --help` says how to run
them by the thousand; `test_fleetsim.py` runs some in CI.
"""
