"""One call of a provider, answered at once or piece by piece, and read the same either way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chat.errors import ChatError
from chat.providers.assembly import Assembly
from chat.providers.upstream import Reply, Upstream
from chat.types import JSON, Cancelled, ChatResponse, Deadline

__all__ = ["ask"]


def ask(
    upstream: Upstream,
    path: str,
    body: JSON,
    read: Callable[[Reply], ChatResponse],
    assembly: Assembly | None,
    *,
    deadline: Deadline,
    cancelled: Cancelled,
    headers: Mapping[str, str] | None = None,
) -> ChatResponse:
    """What ``read`` makes of the answer; with ``assembly`` it is asked for piece by piece.

    Raises what ``Upstream.stream`` and ``read`` raise. Where the upstream has said by then how many
    tokens it had generated, the error's ``partial`` has that as ``output_tokens``.
    """
    if assembly is None:
        return read(
            upstream.post(path, body, deadline=deadline, cancelled=cancelled, headers=headers)
        )
    try:
        reply = upstream.stream(
            path, body, assembly, deadline=deadline, cancelled=cancelled, headers=headers
        )
        response = read(reply)
    except ChatError as error:
        assembly.break_off()
        if assembly.output_tokens is not None:
            error.partial = {"output_tokens": assembly.output_tokens}
        raise
    assembly.hand_over_rest(response)
    return response
