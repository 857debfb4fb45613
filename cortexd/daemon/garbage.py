"""How often the interpreter looks for garbage that refers to itself.

Nearly all that a request leaves behind goes away by itself, when the last reference does. Python's
settings, made for small programs, have it look through everything that is alive every few hundred
requests nevertheless, which grows with the number of keys and models and is a pause for everybody.
"""

import gc

THRESHOLDS = (10_000, 20, 20)
"""Containers that are new before the youngest are looked through; how often that has to happen
before older ones are. What can lie about meanwhile is a few megabytes.
"""


def collect_seldom() -> None:
    """Leave alone for good what is there now, and look through the rest less often.

    To be called once, when everything has started that lives as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
