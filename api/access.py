"""Who calls: keys and their limits, pages in browsers, and the headers that hold those back."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from urllib.parse import urlsplit

from flask import Request, Response

from api.current import Notes, notes, this_request
from api.frontend import FrontEnd
from api.output import GUARDS, JsonResponse
from chat.access import ANYBODY, Caller
from chat.addresses import is_address, is_loopback
from chat.errors import Forbidden, QueueUnavailable, Unauthorized
from chat.formats.strict_json import shown

__all__ = ["OPEN", "admit", "caller", "leave", "only_admin", "protect", "stay"]

#: What is answered without a key: whether chatd is there, and how it is called.
OPEN = frozenset({"/health", "/ready", "/openapi.json"})

_CORS = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, "
    "Prefer, Range, X-Request-Id",
    "Access-Control-Expose-Headers": "Content-Range, ETag, Location, Preference-Applied, "
    "Retry-After, Server-Timing, X-Chatd-Ignored, X-Chatd-Job-Id, X-Request-Id",
    "Access-Control-Max-Age": "600",
}


def caller() -> Caller:
    """Who made the request that is being answered."""
    found = notes().caller
    assert found is not None, "what is answered without a key has no caller"  # noqa: S101 - a defect
    return found


def only_admin() -> None:
    """Raise ``Forbidden`` unless the caller has an admin key."""
    request = this_request()
    if not caller().admin:
        raise Forbidden(
            f"{request.method} {shown(request.path)} is for admin keys, and that of "
            f"{caller().name} is none; ask whoever runs chatd (admin = true in [[chatd.keys]])"
        )


def admit(front: FrontEnd, request: Request, noted: Notes) -> Response | None:
    """Let nobody in who is not to reach this, and note who calls.

    An answer if that is all there is to say. Raises ``Unauthorized``, ``Forbidden`` and
    ``ClientLimited``.
    """
    origin = request.headers.get("Origin")
    if origin is not None and origin not in front.config.allowed_origins:
        raise Forbidden(
            f"pages of {shown(origin)} may not call chatd; let them in with allowed_origins in "
            "[chatd], or call from a program"
        )
    if origin is not None and request.method == "OPTIONS":
        # A browser asks before it sends what a plain form could not; it has no key for that.
        return Response(status=204)
    if not front.keyring:
        _check_host(front, request)
        noted.caller = ANYBODY
        return None
    if request.path in OPEN:
        return None
    noted.caller = _caller(front, request)
    if noted.caller.limited:
        # Not the X-Request-Id: whoever sent the same one with every call would have but one open.
        call = os.urandom(16).hex()
        front.connections().store.begin_call(noted.caller, call)
        noted.counted = call
    return None


def _caller(front: FrontEnd, request: Request) -> Caller:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized(
            "this call needs a key of chatd's: send Authorization: Bearer chatd-…; whoever runs "
            "chatd makes one with `chatd keys new NAME`"
        )
    found = front.keyring.caller(key.strip())
    if found is None:
        # Not a word of the key: it may be somebody's for another service.
        raise Unauthorized(
            "the key in Authorization is none of chatd's; look whether it is whole, or was "
            "replaced since"
        )
    return found


def _check_host(front: FrontEnd, request: Request) -> None:
    """Without keys, being on this machine is what counts, and a page of any site is.

    Its browser can be led to an address here by a name of that site (DNS rebinding), and then takes
    chatd for the site. The name still stands in ``Host``.
    """
    host, is_site = _named(request.host)
    if not is_site:
        return
    origins = front.config.allowed_origins
    if host not in {urlsplit(origin).hostname for origin in origins}:
        raise Forbidden(
            f"chatd has no keys and was called as {shown(request.host)}; call it as localhost or "
            "by its address, or make keys with `chatd keys new NAME`"
        )


@lru_cache(maxsize=64)
def _named(host: str) -> tuple[str, bool]:
    """The name or address in a ``Host``, and whether it could be that of a site."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # A bracket without its other half.
        name = ""
    return name, not (is_loopback(name) or is_address(name))


def protect(front: FrontEnd, request: Request, response: Response) -> None:
    """Add the headers that hold browsers back, where the answer does not say otherwise."""
    if not isinstance(response, JsonResponse):
        for name, value in GUARDS:
            response.headers.setdefault(name, value)
    if response.status_code == 401:  # noqa: PLR2004 - a status reads best as its number
        response.headers["WWW-Authenticate"] = "Bearer"
    origins = front.config.allowed_origins
    if origins:
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin")
        if origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers.update(_CORS)


def leave(front: FrontEnd, noted: Notes) -> None:
    """The call has been answered: it counts against no limit any more."""
    if noted.counted is not None:
        stay(front, noted)()


def stay(front: FrontEnd, noted: Notes) -> Callable[[], None]:
    """Let the call count when it has been answered, until what is returned is called."""
    counted, noted.counted = noted.counted, None
    return partial(_end_call, front, noted.caller, counted)


def _end_call(front: FrontEnd, client: Caller | None, counted: str | None) -> None:
    if counted is not None and client is not None:
        # Without Redis it counts until its time is over; the answer is none the worse.
        with suppress(QueueUnavailable):
            front.connections().store.end_call(client, counted)
