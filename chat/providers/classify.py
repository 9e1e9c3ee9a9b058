"""What an error answer means: status and body in, one class of ``chat.errors`` out.

The status alone misleads: an empty account is 401 at OpenCode, 402 at OpenRouter, 403 at Kimi and
429 at Ollama Cloud, and Ollama reports a wrong option as 500. So this is a table, read from top to
bottom, first match wins. A row asks for the least that tells a case from its neighbours; the last
rows go by status alone.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from chat.errors import (
    ContentFiltered,
    QuotaExhausted,
    UpstreamAuth,
    UpstreamError,
    UpstreamNotFound,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat.jobs import rfc3339
from chat.providers.error_text import ErrorText, printable, read_error
from chat.providers.retry_hint import seconds_until_midnight, seconds_until_retry
from chat.types import Billed

__all__ = ["classify"]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """An error class, whether the same call may succeed later, and what is known of the bill.

    ``advice`` ends the message. ``hints`` is false where what the upstream says about time is known
    to be wrong. ``daily`` is a quota that is renewed at midnight UTC, should the answer not say so.
    """

    error: type[UpstreamError]
    advice: str
    retryable: bool = False
    billed: Billed = Billed.NO
    hints: bool = True
    daily: bool = False


_REJECTED = _Verdict(UpstreamRejected, "change the request")
_AUTH = _Verdict(UpstreamAuth, "check its API key and what the account may do")
_NOT_FOUND = _Verdict(UpstreamNotFound, "check the model name")
_FILTERED = _Verdict(ContentFiltered, "change what the request says")
_QUOTA = _Verdict(
    QuotaExhausted, "wait until the quota is renewed, or add to it there", retryable=True
)
# A quota comes back by waiting, a balance or a spending limit only by what somebody does about it.
_SPENT = _Verdict(QuotaExhausted, "add credits there, or raise the limit that is set there")
_RATE = _Verdict(UpstreamRateLimited, "send fewer requests at a time", retryable=True)
_BUSY = _Verdict(UpstreamUnavailable, "try again later", retryable=True)
_FAILED = replace(_BUSY, billed=Billed.MAYBE)
_TIMEOUT = _Verdict(
    UpstreamTimeout, "try again, or ask for less", retryable=True, billed=Billed.MAYBE
)
_PROTOCOL = _Verdict(UpstreamProtocolError, "check the base URL", billed=Billed.MAYBE)

_ANY_STATUS = range(1000)
_ANY_PROVIDER = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """One known case: of some providers, its status, and a pattern that its words contain.

    ``providers`` are names with a space between them, or ``_ANY_PROVIDER``.
    """

    providers: str
    status: Container[int]
    words: str
    verdict: _Verdict

    def covers(self, provider: str, status: int, said: ErrorText) -> bool:
        return (
            (self.providers == _ANY_PROVIDER or provider in self.providers.split())
            and status in self.status
            and re.search(self.words, said.marks) is not None
        )


_ROWS = (
    # Ollama's cloud, called directly or through a local daemon, which passes on what it says.
    # Source: ollama/ollama issues 12532, 15718, 15934; no header tells these apart, none says when
    # the quota is renewed.
    _Row("ollama ollama_cloud", _ANY_STATUS, r"\busage limit\b", _QUOTA),
    _Row("ollama ollama_cloud", _ANY_STATUS, r"concurrent request slot", _RATE),
    _Row(
        "ollama ollama_cloud",
        (403,),
        r"requires a subscription",
        replace(_AUTH, advice="choose a model of the plan, or upgrade it there"),
    ),
    # Behind a daemon as well, a failure of the cloud is told by its reference.
    _Row("ollama ollama_cloud", (500,), r"\(ref: ", _FAILED),
    # Local Ollama. Source: server/routes.go, server/sched.go, server/cloud_proxy.go.
    # Two mistakes of the request that the daemon reports as 500.
    _Row("ollama", (500,), r"option .+ must be of type|^invalid format\b", _REJECTED),
    _Row(
        "ollama",
        (401,),
        r"unauthorized",
        replace(_AUTH, advice='a cloud model needs "ollama signin" on the machine of the daemon'),
    ),
    _Row(
        "ollama",
        (403,),
        r"cloud is disabled",
        replace(_AUTH, advice="use a local model, or allow cloud models in the daemon"),
    ),
    # Empty body: a daemon bound to loopback does not know the name in the Host header.
    _Row(
        "ollama",
        (403,),
        r"^$",
        replace(_AUTH, advice="address the daemon as localhost or 127.0.0.1 in ollama_url"),
    ),
    # The daemon let go of a waiting request. Source: server/routes.go, status 499.
    _Row("ollama", (499,), r"", _BUSY),
    # The model runner crashed or did not start: a local model costs nothing.
    _Row("ollama", (500,), r"", _BUSY),
    # The daemon could not even connect to its cloud. Source: server/cloud_proxy.go (Go's dialer).
    _Row("ollama", (502,), r"dial tcp", _BUSY),
    # OpenRouter. Source: OpenRouter docs, errors-and-debugging and limits.
    # The only 402 that passes: running requests have reserved what is left of the balance.
    _Row(
        "openrouter",
        (402,),
        r"openrouter_in_flight_budget",
        replace(_RATE, advice="wait until running requests have ended"),
    ),
    _Row(
        "openrouter",
        (402,),
        r"can only afford",
        # It is this request that is too dear; what it says about time is not about that.
        replace(_SPENT, advice="lower max_tokens, or add credits there", hints=False),
    ),
    # A key's or a workspace's budget, mostly with the time at which it is renewed. Source:
    # openrouter.zendesk.com, article 39501163636379.
    _Row("openrouter", (403,), r"metadata\.limit_source|budget|key limit", _SPENT),
    _Row(
        "openrouter",
        (403,),
        r"flagged|metadata\.patterns|prompt injection|content_policy_violation|moderation",
        _FILTERED,
    ),
    _Row("openrouter", (400,), r"model_not_found|not a valid model id", _NOT_FOUND),
    _Row("openrouter", (400,), r"content_policy_violation", _FILTERED),
    # 50 or 1000 requests a day on free models, renewed at midnight UTC. Source: OpenRouter docs,
    # client-sdks, FreeModelDailyRequests.
    _Row("openrouter", (429,), r"free-models-per-day|free_tier_daily", replace(_QUOTA, daily=True)),
    # OpenCode Zen and Go. Source: routes/zen/util/error.ts and handler.ts of anomalyco/opencode.
    # An empty balance, and what a workspace or a user may spend in a month.
    _Row("opencode", (401,), r"(credits|monthlylimit|userlimit)error", _SPENT),
    _Row(
        "opencode",
        (401,),
        r"modelerror",
        replace(
            _NOT_FOUND,
            advice="check the model name, and that this model answers on /chat/completions there",
        ),
    ),
    _Row("opencode", (403,), r"", replace(_AUTH, advice="the model is not offered to this caller")),
    # Free models by address and UTC day. Source: routes/zen/util/ipRateLimiter.ts.
    _Row("opencode", (429,), r"freeusagelimiterror", replace(_QUOTA, daily=True)),
    # What a subscription may use in 5 hours, a week or a month, with the time until it is renewed.
    _Row("opencode", (429,), r"(gousage|blackusage)limiterror", _QUOTA),
    # The model's own provider answered 404, which Zen rewrites to 400.
    _Row("opencode", (400,), r"not_found_error|model does not exist", _NOT_FOUND),
    # Kimi For Coding. Source: kimi.com/code/docs, error-reference; kimi-errors.ts of MoonshotAI/
    # kimi-code. The same 403 and type mean a used-up quota or a client that is not let in.
    _Row("kimi", (403,), r"usage limit", _QUOTA),
    _Row(
        "kimi",
        (403,),
        r"coding agents",
        replace(
            _AUTH,
            advice="it does not permit this client; use the Moonshot API, which is for general "
            "use, by setting base_url and its own key",
        ),
    ),
    # The membership cannot be verified, so that nothing can be booked on it.
    _Row("kimi", (402,), r"", replace(_SPENT, advice="check the membership there")),
    # Sends a Retry-After of seconds although nothing is left until the quota is renewed.
    _Row("kimi", (429,), r"usage limit", replace(_QUOTA, hints=False)),
    _Row("kimi", (400,), r"content_filter|considered high risk", _FILTERED),
    _Row("kimi", (409,), r"", _BUSY),
    # The model is full, whoever asks: no limit of ours, so sending less would not help. Kimi's own
    # words, also as OpenCode passes them on.
    _Row(_ANY_PROVIDER, (429,), r"engine_overloaded|engine is currently overloaded", _BUSY),
    # The balance of whoever runs the model: Moonshot's type (kimi-errors.ts) and OpenAI's (OpenAI
    # docs, guides/error-codes), which OpenCode passes on as well. Limits that come with it are
    # others.
    _Row(
        _ANY_PROVIDER,
        (429,),
        r"\b(exceeded_current_quota_error|insufficient_quota)\b",
        replace(_SPENT, hints=False),
    ),
    # OpenAI's answer to one request that is larger than all the tokens of a minute: it never fits.
    # Source: TheR1D/shell_gpt issue 653.
    _Row(_ANY_PROVIDER, (429,), r"\brequest too large for\b", _REJECTED),
    # OpenRouter's types, where the status says less: for instance inside a 200 answer.
    _Row("openrouter", _ANY_STATUS, r"\bcontent_policy_violation\b", _FILTERED),
    _Row("openrouter", _ANY_STATUS, r"\brate_limit_exceeded\b", _RATE),
    _Row("openrouter", _ANY_STATUS, r"\bpayment_required\b", _SPENT),
    _Row("openrouter", _ANY_STATUS, r"\bprovider_overloaded\b", _BUSY),
    # Any provider, by status. Source: RFC 9110; 524 is Cloudflare's, 529 Anthropic's and others'.
    _Row(_ANY_PROVIDER, (401, 403, 407), r"", _AUTH),
    _Row(_ANY_PROVIDER, (402,), r"", _SPENT),
    _Row(_ANY_PROVIDER, (404,), r"", _NOT_FOUND),
    _Row(_ANY_PROVIDER, (408, 504, 524), r"", _TIMEOUT),
    _Row(_ANY_PROVIDER, (429,), r"", _RATE),
    _Row(_ANY_PROVIDER, range(400, 500), r"", _REJECTED),
    _Row(_ANY_PROVIDER, (503, 529), r"", _BUSY),
    _Row(_ANY_PROVIDER, range(500, 600), r"", _FAILED),
    # Followed, a redirect would carry the key and the prompt to wherever it points.
    _Row(
        _ANY_PROVIDER,
        range(300, 400),
        r"",
        replace(
            _PROTOCOL,
            billed=Billed.NO,
            advice="the base URL is probably wrong, since redirects are not followed",
        ),
    ),
    _Row(_ANY_PROVIDER, _ANY_STATUS, r"", _PROTOCOL),
)


def classify(
    provider: str,
    status: int,
    headers: Mapping[str, str],
    body: object,
    *,
    now: float,
    secret: str | None = None,
) -> UpstreamError:
    """The error that an answer of ``provider`` with this ``status`` stands for.

    ``headers`` has lower-case names. ``body`` is the decoded JSON value or, where it was not JSON,
    its text. ``now`` is in seconds since the epoch. The message quotes the upstream, shortened,
    with ``secret`` masked.
    """
    said = read_error(body)
    verdict = next(row.verdict for row in _ROWS if row.covers(provider, status, said))
    quoted = printable(said.message, secret)
    words = f': "{quoted}"' if quoted else " without a reason"
    error = verdict.error(
        f"{provider} answered {status}{words}; {verdict.advice}",
        provider=provider,
        upstream_status=status,
        retryable=verdict.retryable,
        billed=verdict.billed,
    )
    seconds = _seconds_until_retry(verdict, headers, said, now)
    if seconds is not None:
        error.retry_after_s = seconds
        if verdict.error is QuotaExhausted:
            error.resets_at = rfc3339(round((now + seconds) * 1000))
    return error


def _seconds_until_retry(
    verdict: _Verdict, headers: Mapping[str, str], said: ErrorText, now: float
) -> float | None:
    """When the same call may succeed; ``None`` if it never will, or if nobody said when."""
    is_quota = verdict.error is QuotaExhausted
    if not (verdict.retryable or is_quota):
        return None
    seconds = None
    if verdict.hints:
        limited = verdict.error is UpstreamRateLimited or (is_quota and verdict.retryable)
        seconds = seconds_until_retry(headers, said, now=now, limited=limited)
    if seconds is None and verdict.daily:
        return seconds_until_midnight(now)
    # A quota that was renewed already, so the answer says, just refused the call: nobody knows.
    return None if is_quota and seconds == 0 else seconds
