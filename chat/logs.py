"""Logging of one process: one line an event, to standard error, whoever logs it."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

from chat.types import json_writer

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = [
    "begin_log_context",
    "configure",
    "end_log_context",
    "greenlet_failed",
    "log_context",
    "log_event",
]

_log = logging.getLogger(__name__)

_context: ContextVar[Mapping[str, object]] = ContextVar(
    "chatd_log_context", default=MappingProxyType({})
)

#: What every record has; whatever else it has came with ``extra``.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}
#: The fields that a line of text shows; one of JSON has all of them.
_SHOWN_IN_TEXT = ("request_id", "job_id")
#: What begins a new line or moves the cursor somewhere. The last two are Unicode's own line ends.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(process: str, level: str, form: str = "json") -> None:
    """Log everything of ``level`` and above, in this process from now on.

    ``form`` "json": each line is a JSON object with ``time`` (RFC 3339, UTC), ``level``,
    ``process``, ``logger`` and ``message``; where there is one, ``request_id``, ``job_id``, further
    fields of the event, and the traceback as ``exception``. "text": a line for people, and a
    traceback below it. Warnings and exceptions that nobody catches are logged as well.

    Celery's line for each task received and done is left out: the record has it.
    """
    # What no line shows need not be found out for each (Logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMS[form](process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    # It quotes headers that it cannot read, and an upstream may have put our key into them.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


@contextmanager
def log_context(**fields: str | None) -> Iterator[None]:
    """Put ``request_id`` or ``job_id`` on every line that is logged inside.

    It holds for the thread or greenlet that enters it, and not for those it starts. What is given
    inside another one comes on top; ``None`` changes nothing.
    """
    begun = begin_log_context(**fields)
    try:
        yield
    finally:
        end_log_context(begun)


def begin_log_context(**fields: str | None) -> Token[Mapping[str, object]]:
    """``log_context`` for what begins in one call and ends in another, by ``end_log_context``."""
    given = {name: value for name, value in fields.items() if value is not None}
    return _context.set({**_context.get(), **given})


def end_log_context(begun: Token[Mapping[str, object]]) -> None:
    """Take back what ``begin_log_context`` has put on the lines of log."""
    _context.reset(begun)


def log_event(
    logger: logging.Logger, level: int, message: str, *args: object, **fields: object
) -> None:
    """``logger.log`` with ``fields`` as its ``extra``, for what is logged with each request.

    Nobody looks for the line of code that logs it, on which a logger spends half its time.
    """
    if logger.isEnabledFor(level):
        own = {
            "name": logger.name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": message,
            "args": args,
        }
        logger.handle(logging.makeLogRecord({**fields, **own}))


class _JsonLines(logging.Formatter):
    """A JSON object a line, in ASCII: no reader can take part of it for the end of a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line of ``record``. Whatever was logged, this raises nothing."""
        event: dict[str, object] = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": _message(record),
        }
        event = {**event, **_fields(record), **event}
        if record.exc_info and record.exc_info[0] is not None:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = record.stack_info
        return _json(event)


class _TextLines(logging.Formatter):
    """A line for people, in local time; only a traceback takes lines of its own."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line of ``record``. Whatever was logged, this raises nothing."""
        fields = _fields(record)
        ids = [f"{name}={_text(fields[name])}" for name in _SHOWN_IN_TEXT if name in fields]
        said = f"{self.formatTime(record)} {record.levelname} {self._process}: {_message(record)}"
        line = f"{said} [{' '.join(ids)}]" if ids else said
        lines = [_CONTROL.sub(lambda found: _escaped(found[0]), line)]
        if record.exc_info and record.exc_info[0] is not None:
            lines.append(self.formatException(record.exc_info))
        if record.stack_info:
            lines.append(record.stack_info)
        return "\n".join(lines)


_FORMS: Mapping[str, type[_JsonLines | _TextLines]] = {"json": _JsonLines, "text": _TextLines}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The context's fields, and those of the event itself, which count more."""
    own = {
        name: value
        for name, value in vars(record).items()
        if name not in _USUAL and value is not None
    }
    return {**_context.get(), **own}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().rstrip()
    except Exception:  # noqa: BLE001 - what does not fit its arguments is still worth a line
        return f"{_text(record.msg)} (does not fit its arguments {_text(record.args)})"


def _json(event: dict[str, object]) -> str:
    try:
        return _encoded(event)
    except (TypeError, ValueError, RecursionError):
        return _encoded({_text(name): _encodable(value) for name, value in event.items()})


def _encodable(value: object) -> object:
    """``value``, or its text if JSON cannot have it: what contains itself, an infinite number."""
    try:
        _encoded(value)
    except (TypeError, ValueError, RecursionError):
        return _text(value)
    return value


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the code of whoever logs it; the rest of the line counts
        return f"<{type(value).__name__} that cannot be shown>"


_encoded = json_writer(json.JSONEncoder(default=_text, allow_nan=False))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _rfc3339(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat(timespec='milliseconds')[:-6]}Z"


def _uncaught(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    """``sys.excepthook``."""
    _log.critical("an uncaught exception ends the process", exc_info=error)


def _uncaught_in_thread(failure: threading.ExceptHookArgs) -> None:
    """``threading.excepthook``."""
    if issubclass(failure.exc_type, SystemExit):
        return  # A thread may end itself this way.
    name = failure.thread.name if failure.thread is not None else "without a name"
    kind = failure.exc_type.__name__
    _log.error("an uncaught %s ends the thread %s", kind, name, exc_info=failure.exc_value)


def greenlet_failed(
    context: object,
    kind: type[BaseException],
    error: BaseException | None,
    _: TracebackType | None,
) -> None:
    """``print_exception`` of gevent's hub: an exception ends a greenlet or a callback."""
    _log.error("an uncaught %s ends %r", kind.__name__, context, exc_info=error)


def _unraisable(failure: UnraisableHookArgs) -> None:
    """``sys.unraisablehook``: an exception in a finalizer, or in a callback of C code."""
    what, kind = failure.err_msg or "an exception is ignored in", failure.exc_type.__name__
    _log.error("%s %r: %s", what, failure.object, kind, exc_info=failure.exc_value)
