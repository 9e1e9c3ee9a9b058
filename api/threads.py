"""Work that may wait for the disk, out of the way of the other requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from gevent import get_hub
from gevent.monkey import is_module_patched

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns or raises, done in a thread in which it holds nobody up.

    Under gevent the greenlets of a process share one thread, and one that waits for a disk keeps
    all of them waiting. Elsewhere each request has a thread already, and works in that.
    """
    if not is_module_patched("threading"):
        return work(*args, **kwargs)
    return cast("T", get_hub().threadpool.apply(work, args, kwargs))
