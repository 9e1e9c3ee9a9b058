"""Python's search for cycles of garbage, made rarer in processes that hold many calls at once."""

from __future__ import annotations

import gc

__all__ = ["search_less"]

#: New containers after which the youngest are searched, and how many searches of one generation
#: make one of the next. With 700, Python's own number, a call that waits is searched again and
#: again, and all of Celery and Flask with each full search.
_NEW, _YOUNG, _OLD = 10_000, 20, 20


def search_less() -> None:
    """Leave what this process has made until now alone, and search what comes after it less often.

    To be called once everything is imported and made, in each process for itself. References still
    free nearly everything at once: cycles come from exceptions, as a rule. They may now hold the
    memory of some 10,000 objects before they are found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW, _YOUNG, _OLD)
