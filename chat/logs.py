"""Logging of one process: one line an event, to standard error."""

from __future__ import annotations

import logging

__all__ = ["configure"]


def configure(process: str, level: str) -> None:
    """Log everything of ``level`` and above; each line begins with the time and the process.

    Celery's line for each task received and done is left out: the record has it.
    """
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s %(levelname)s {process}: %(message)s",
        force=True,
    )
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    # It quotes headers that it cannot read, and an upstream may have put our key into them.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
