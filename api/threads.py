"""Work that may wait for the disk, out of the way of the other requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

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
    result, error = get_hub().threadpool.apply(_attempt, (work, args, kwargs))
    if error is not None:
        raise error
    return cast("T", result)


def _attempt(
    work: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[object, Exception | None]:
    """What ``work`` returns, or what it raises: gevent would log that as an error of the thread."""
    try:
        return work(*args, **kwargs), None
    except Exception as error:  # noqa: BLE001 - it is raised again where the work was asked for
        return None, error
