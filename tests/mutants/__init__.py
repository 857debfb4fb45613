"""Mutation of the tests: break the ledger on purpose, one line at a time, and see who notices.

`python -m tests.mutants` applies every mutant to a private copy of the tree and runs what should
kill it. A test, a check or a layer of the simulator that kills nothing proves nothing.
"""
