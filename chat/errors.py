"""Everything that can go wrong, as one tree; each class has a stable ``code``.

    ChatError
      InvalidRequest  TooLarge  IdempotencyMismatch  ProviderNotRegistered
      Unauthorized  Forbidden  ClientLimited
      JobNotFound  ModelNotFound  JobCancelled  ResultExpired  QueueFull  DeadlineExceeded
      FileNotFound  BatchNotFound  EvaluationNotFound
      QueueUnavailable  StorageUnavailable  NoWorker  Draining
      UpstreamError
        UpstreamRejected  UpstreamAuth  UpstreamNotFound  UpstreamUnavailable
        UpstreamProtocolError  ContentFiltered  OutcomeUnknown
        UpstreamRateLimited  QuotaExhausted  UpstreamTimeout

The core knows ``code``, ``retryable`` and ``billed``; HTTP numbers stand in ``api/errors.py``.
Crossing the queue, an error is its wire form and is rebuilt by code.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from chat.types import JSON, Billed

__all__ = [
    "BatchNotFound",
    "ChatError",
    "ClientLimited",
    "ConfigError",
    "ContentFiltered",
    "DeadlineExceeded",
    "Draining",
    "EvaluationNotFound",
    "FileNotFound",
    "Forbidden",
    "IdempotencyMismatch",
    "InvalidRequest",
    "JobCancelled",
    "JobNotFound",
    "ModelNotFound",
    "NoWorker",
    "OutcomeUnknown",
    "ProviderNotRegistered",
    "QueueFull",
    "QueueUnavailable",
    "QuotaExhausted",
    "ResultExpired",
    "StorageUnavailable",
    "TooLarge",
    "Unauthorized",
    "UpstreamAuth",
    "UpstreamError",
    "UpstreamNotFound",
    "UpstreamProtocolError",
    "UpstreamRateLimited",
    "UpstreamRejected",
    "UpstreamTimeout",
    "UpstreamUnavailable",
    "error_classes",
    "error_from_wire",
]


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key, the rule and the way out."""


class ChatError(Exception):
    """Base of every error a caller can see.

    The message names the value, the rule and the way out, and never a key. ``retryable`` says
    whether the same call may succeed later; ``billed`` what is known about the bill. ``partial`` is
    what had come of an answer that was to come piece by piece, as ``chat.partial`` describes it.
    """

    code: ClassVar[str] = "internal_error"
    retryable: bool = False
    billed: Billed = Billed.NO

    #: What an error carries beside its code and message, in wire order.
    EXTRAS: ClassVar[tuple[str, ...]] = (
        "param",
        "job_id",
        "provider",
        "upstream_model",
        "upstream_status",
        "retry_after_s",
        "resets_at",
        "latency_ms",
        "partial",
    )

    def __init__(  # noqa: PLR0913 - one field each, all by name
        self,
        message: str,
        *,
        param: str | None = None,
        job_id: str | None = None,
        provider: str | None = None,
        upstream_model: str | None = None,
        upstream_status: int | None = None,
        retry_after_s: float | None = None,
        resets_at: str | None = None,
        latency_ms: int | None = None,
        partial: JSON | None = None,
        retryable: bool | None = None,
        billed: Billed | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.job_id = job_id
        self.provider = provider
        self.upstream_model = upstream_model
        self.upstream_status = upstream_status
        self.retry_after_s = retry_after_s
        self.resets_at = resets_at
        self.latency_ms = latency_ms
        self.partial = partial
        if retryable is not None:
            self.retryable = retryable
        if billed is not None:
            self.billed = billed

    def to_wire(self) -> JSON:
        """``{"code", "message", …}`` with the extras that are known.

        ``retryable`` and ``billed`` stand in it where they are not what the code alone says.
        """
        wire: JSON = {"code": self.code, "message": self.message}
        for name in self.EXTRAS:
            value = getattr(self, name)
            if value is not None:
                wire[name] = value
        if self.retryable is not type(self).retryable:
            wire["retryable"] = self.retryable
        if self.billed is not type(self).billed:
            wire["billed"] = self.billed.value
        return wire

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        extras: dict[str, Any] = {name: wire[name] for name in cls.EXTRAS if name in wire}
        billed = wire.get("billed")
        return cls(
            wire["message"],
            retryable=wire.get("retryable"),
            billed=None if billed is None else Billed(billed),
            **extras,
        )


class InvalidRequest(ChatError):
    """The request breaks a rule; ``param`` names the field."""

    code = "invalid_request"


class TooLarge(ChatError):
    """The body is larger than the gateway accepts."""

    code = "too_large"


class Unauthorized(ChatError):
    """The call came without a key of chatd's, or with one it does not know."""

    code = "unauthorized"


class Forbidden(ChatError):
    """The call is not for this caller."""

    code = "forbidden"


class ClientLimited(ChatError):
    """The caller's key has used up what it may do now; nothing was queued."""

    code = "client_limited"
    retryable = True


class IdempotencyMismatch(ChatError):
    """The same Idempotency-Key came with another body."""

    code = "idempotency_mismatch"


class ProviderNotRegistered(ChatError):
    """The model name points at a provider this gateway has no key or URL for."""

    code = "provider_not_registered"


class JobNotFound(ChatError):
    """No job has this id."""

    code = "job_not_found"


class FileNotFound(ChatError):
    """No file has this id, or it was deleted or has expired."""

    code = "file_not_found"


class BatchNotFound(ChatError):
    """No batch has this id."""

    code = "batch_not_found"


class EvaluationNotFound(ChatError):
    """No evaluation has this id."""

    code = "evaluation_not_found"


class ModelNotFound(ChatError):
    """No list of models has this one; a chat with it may be answered all the same."""

    code = "model_not_found"


class JobCancelled(ChatError):
    """Somebody cancelled the job."""

    code = "job_cancelled"


class ResultExpired(ChatError):
    """The job is over and its record was removed when its retention ended."""

    code = "result_expired"


class QueueFull(ChatError):
    """The queue has reached its cap on jobs or bytes; nothing was queued."""

    code = "queue_full"
    retryable = True


class DeadlineExceeded(ChatError):
    """The job's own deadline passed before it had an answer."""

    code = "deadline_exceeded"


class QueueUnavailable(ChatError):
    """Redis cannot be reached or refuses writes."""

    code = "redis_unavailable"
    retryable = True


class StorageUnavailable(ChatError):
    """The disk below ``data_dir`` is full, or cannot be read or written."""

    code = "storage_unavailable"
    retryable = True


class NoWorker(ChatError):
    """No worker of the provider has been seen lately, so nobody would answer."""

    code = "no_worker"
    retryable = True


class Draining(ChatError):
    """The front end is stopping, or the provider is drained: nothing new is begun."""

    code = "draining"
    retryable = True


class UpstreamError(ChatError):
    """Base of what an upstream, or the way to it, did wrong."""

    code = "upstream_error"


class UpstreamRejected(UpstreamError):
    """The upstream refused the request itself; the same request will be refused again."""

    code = "upstream_rejected"


class UpstreamAuth(UpstreamError):
    """The upstream refused the key, the account or this kind of client."""

    code = "upstream_auth"


class UpstreamNotFound(UpstreamError):
    """The upstream does not have the model."""

    code = "upstream_not_found"


class UpstreamUnavailable(UpstreamError):
    """The upstream is down, overloaded or cut the connection."""

    code = "upstream_unavailable"
    retryable = True
    billed = Billed.MAYBE


class UpstreamProtocolError(UpstreamError):
    """The upstream answered something that is not an answer."""

    code = "upstream_protocol"
    billed = Billed.MAYBE


class ContentFiltered(UpstreamError):
    """The upstream's moderation stopped the request."""

    code = "content_filtered"


class OutcomeUnknown(UpstreamError):
    """The call went out and nobody knows how it ended; it may have been billed."""

    code = "outcome_unknown"
    billed = Billed.MAYBE


class UpstreamRateLimited(UpstreamError):
    """The upstream's rate limit; ``retry_after_s`` when it said."""

    code = "rate_limited"
    retryable = True


class QuotaExhausted(UpstreamError):
    """A quota or a balance is used up; ``resets_at`` when it is known."""

    code = "quota_exhausted"


class UpstreamTimeout(UpstreamError):
    """The upstream took longer than one call may, or said so itself."""

    code = "upstream_timeout"
    retryable = True
    billed = Billed.MAYBE


def error_classes() -> tuple[type[ChatError], ...]:
    """Every class that a caller can meet, base classes left out."""

    def walk(cls: type[ChatError]) -> list[type[ChatError]]:
        subclasses = cls.__subclasses__()
        return [cls] if not subclasses else [c for sub in subclasses for c in walk(sub)]

    return tuple(walk(ChatError))


def error_from_wire(wire: JSON) -> ChatError:
    """Rebuild an error from ``to_wire``; an unknown code becomes a plain ``ChatError``."""
    classes = {cls.code: cls for cls in error_classes()}
    return classes.get(wire["code"], ChatError).from_wire(wire)
