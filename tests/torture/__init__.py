"""The whole daemon under torture: real processes, real files, random load and every kind of end.

`python -m tests.torture --rounds 500 --seed 1` runs it; `books.py` is the judge, which reads the
journal without any code of the ledger, and what the neurons wrote down before they served it.
"""
