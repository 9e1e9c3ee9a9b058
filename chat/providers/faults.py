"""What became of a call that brought no answer: faults of the network, told in our own errors."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator

import requests
import urllib3.exceptions

from chat.errors import (
    ChatError,
    JobCancelled,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat.providers.error_text import printable
from chat.providers.limits import AnswerTooLarge
from chat.providers.watchdog import StopReason
from chat.types import Billed

__all__ = ["AnswerCut", "network_error", "stop_error"]


class AnswerCut(Exception):
    """An answer ended, as far as HTTP goes, before what its own protocol ends it with."""


#: What http.client and urllib3 raise at bytes that are not HTTP, or not in the announced encoding.
_NOT_HTTP = (
    http.client.HTTPException,
    requests.exceptions.InvalidHeader,
    urllib3.exceptions.DecodeError,
    urllib3.exceptions.InvalidHeader,
)

#: Their subclasses that mean a connection which ended too early instead.
_CUT_SHORT = (http.client.RemoteDisconnected, http.client.IncompleteRead)


def stop_error(provider: str, host: str, reason: StopReason, *, why: str, sent: bool) -> ChatError:
    """The error of an attempt that was stopped; ``why`` is who cancelled it, if somebody did."""
    billed = Billed.MAYBE if sent else Billed.NO
    if reason is StopReason.CANCELLED:
        return JobCancelled(
            f"the call to {provider} was stopped: {why}", provider=provider, billed=billed
        )
    if reason is StopReason.DEADLINE:
        return UpstreamTimeout(
            f"{provider} had not answered completely when the time limit of the call was over; "
            "ask for less, or allow more time",
            provider=provider,
            billed=billed,
        )
    return _no_connection(provider, host, "it does not answer in time")


def network_error(provider: str, host: str, fault: Exception, *, sent: bool) -> UpstreamError:
    """The error for a ``fault`` of the network; ``sent`` if any of the request may have left."""
    causes = tuple(_causes(fault))
    if not sent:
        untrusted = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)
        return _no_connection(provider, host, _why_not_connected(causes), retryable=not untrusted)
    if any(isinstance(cause, AnswerTooLarge) for cause in causes):
        return UpstreamProtocolError(
            f"the answer of {provider} is larger than {fault}; ask for less", provider=provider
        )
    if any(isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError) for cause in causes):
        return UpstreamTimeout(f"{provider} fell silent; try again later", provider=provider)
    if any(_is_not_http(cause) for cause in causes):
        return UpstreamProtocolError(
            f"{provider} answered something that is not HTTP; "
            f"check that the base URL with {host} is that of {provider}",
            provider=provider,
        )
    return UpstreamUnavailable(
        f"{provider} cut the connection before its answer was complete; try again later",
        provider=provider,
    )


def _no_connection(
    provider: str, host: str, why: str, *, retryable: bool = True
) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"{provider} cannot be reached at {host}: {why}; check the base URL and the network",
        provider=provider,
        retryable=retryable,
        billed=Billed.NO,
    )


def _why_not_connected(causes: tuple[BaseException, ...]) -> str:
    """The innermost cause that people have a word for."""
    for cause in reversed(causes):
        words = _words_for(cause)
        if words:
            return words
    return _innermost(causes)


def _words_for(cause: BaseException) -> str:
    words = ""
    match cause:
        case socket.gaierror():
            words = f"its name cannot be resolved ({cause.strerror or cause})"
        case ssl.SSLCertVerificationError():
            words = f"its TLS certificate is not trusted ({cause.verify_message})"
        case ssl.SSLError():
            words = f"TLS cannot be set up ({cause.reason})"
        case ConnectionRefusedError():
            words = "nothing accepts connections there"
        case urllib3.exceptions.ConnectTimeoutError() | TimeoutError():
            words = "it does not answer in time"
    return words


def _innermost(causes: tuple[BaseException, ...]) -> str:
    last = causes[-1]
    words = last.strerror if isinstance(last, OSError) and last.strerror else str(last)
    return printable(words, None)


def _is_not_http(cause: BaseException) -> bool:
    if isinstance(cause, urllib3.exceptions.InvalidChunkLength):
        return True
    return isinstance(cause, _NOT_HTTP) and not isinstance(cause, _CUT_SHORT)


def _causes(fault: BaseException) -> Iterator[BaseException]:
    """``fault`` and what it stands for, outermost first.

    requests and urllib3 keep the exception they translate in ``args`` or in ``reason``.
    """
    yield fault
    inner = (getattr(fault, "reason", None), *fault.args, fault.__cause__)
    for cause in inner:
        if isinstance(cause, BaseException):
            yield from _causes(cause)
            return
