"""The way to Redis: which one, how long a call may take, and its faults as one error of ours."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import ExponentialBackoff
from redis.connection import parse_url
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from chat.addresses import TLS_FILES
from chat.errors import ConfigError, QueueUnavailable
from chat.keepalive import tcp_options

if TYPE_CHECKING:
    from chat.settings import ChatdConfig

__all__ = [
    "KEEPALIVE",
    "RETRY_AFTER_S",
    "await_redis",
    "check_durability",
    "connect",
    "embedded_url_file",
    "kept_on_disk",
    "redis_errors",
    "redis_url",
]

_log = logging.getLogger(__name__)

#: Seconds a caller is asked to wait when the queue is full or Redis is away.
RETRY_AFTER_S = 5.0

#: For connections that wait for Redis to say something: a subscription, or a worker's BRPOP.
KEEPALIVE = tcp_options(idle_s=5, every_s=5, dead_s=15)

_OLDEST_REDIS = (6, 2)

#: With it, Redis syncs nothing while it rewrites its append-only file, whatever else it is told.
_SKIPS = "no-appendfsync-on-rewrite"

_CONNECTIONS = 64
#: Seconds a call waits for a connection when all of them are in use.
_POOL_WAIT_S = 10.0


class _OneRound(Retry):
    """Retries that do not multiply.

    redis-py retries a command, and within each of its tries the connecting that may be part of it:
    three times three, each as long as the time limit when packets are swallowed. Here what is tried
    within another try is tried once. A connection has a copy of its own, and one thread at a time.
    """

    _trying = False

    def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,  # noqa: FBT001, FBT002 - redis-py's signature
    ) -> Any:
        """Try it as often as is allowed, or once."""
        if not self._trying:
            self._trying = True
            try:
                return super().call_with_retry(do, fail, is_retryable, with_failure_count)
            finally:
                self._trying = False
        try:
            return do()
        except self._supported_errors as error:
            if with_failure_count:
                fail(error, 1)
            else:
                fail(error)
            raise


def connect(redis_url: str, *, timeout_s: float = 3.0, retries: int = 2) -> redis.Redis:
    """A client whose every call ends: at most ``(retries + 1) * timeout_s`` and the pauses between.

    Retrying is safe because the scripts are idempotent. A connection to a Redis that has become a
    replica is given up: its name may stand for the new master by now. RESP 2 is asked for, since
    pub/sub and commands need nothing newer. Callers beyond ``_CONNECTIONS`` wait for one to come
    free; the usual pool would refuse them. Raises ``ConfigError`` when a file of TLS that the URL
    names cannot be used.
    """
    _check_tls_files(redis_url)
    # redis-py's connections over a unix socket know none of these.
    tcp: dict[str, Any] = {
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE,
    }
    pool = redis.BlockingConnectionPool.from_url(
        redis_url,
        max_connections=_CONNECTIONS,
        timeout=_POOL_WAIT_S,
        decode_responses=True,
        protocol=2,
        socket_timeout=timeout_s,
        health_check_interval=25,
        retry=_OneRound(ExponentialBackoff(cap=0.5, base=0.05), retries),
        retry_on_error=[ReadOnlyError],
        **({} if redis_url.startswith("unix:") else tcp),
    )
    return redis.Redis.from_pool(pool)


def _check_tls_files(redis_url: str) -> None:
    """Read them once, with a clear word: redis-py reads them anew for each connection."""
    ca, certificate, key = (parse_url(redis_url).get(name) for name in TLS_FILES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    named = str(ca)
    try:
        if ca is not None:
            context.load_verify_locations(ca)
        if certificate is not None:
            named = f"{certificate} with {key}"
            # Without a password OpenSSL would ask for that of an encrypted key on the terminal.
            context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ConfigError(
            f"[chatd] redis_url names {named} for TLS, which cannot be used ({error.strerror}); "
            "name PEM files that this user can read: a CA, and a certificate with its own key "
            "without a password"
        ) from error


def embedded_url_file(config: ChatdConfig) -> Path:
    """Where ``chatd up`` writes the URL, password included, of the Redis it has started."""
    return config.data_dir / "redis" / "url"


def redis_url(config: ChatdConfig) -> str:
    """The configured Redis, else the one that ``chatd up`` runs. Raises ``ConfigError``."""
    if config.redis_url:
        return config.redis_url
    file = embedded_url_file(config)
    try:
        return file.read_text("utf-8").strip()
    except FileNotFoundError:
        raise ConfigError(
            f'[chatd] redis_url is "" and no Redis of chatd\'s own has been started ({file} is '
            "missing); run `chatd up`, or set redis_url"
        ) from None


def await_redis(client: redis.Redis, timeout_s: float = 60.0) -> None:
    """Wait for Redis at a process's start.

    Raises ``QueueUnavailable`` when it does not come, and ``ConfigError`` when it does not let
    itself be asked, and for a cluster: the scripts touch broker, records and budgets together.
    """
    info = _awaited_info(client, timeout_s)
    if int(info.get("cluster_enabled", 0)):
        raise ConfigError(
            "[chatd] redis_url points at a Redis Cluster, which chatd cannot use: its scripts "
            "need all keys in one database; point it at a single Redis"
        )
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_REDIS:
        raise ConfigError(
            f"[chatd] redis_url points at Redis {version}; chatd and Celery's transport need "
            "6.2 or newer"
        )
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        _log.warning(
            "Redis evicts keys when it is full (maxmemory-policy %s): jobs could vanish; "
            "set maxmemory-policy noeviction",
            info["maxmemory_policy"],
        )


def _awaited_info(client: redis.Redis, timeout_s: float) -> dict[str, Any]:
    until = time.monotonic() + timeout_s
    while True:
        try:
            with redis_errors():
                client.ping()
                return dict(client.info())
        except QueueUnavailable as error:
            if isinstance(error.__cause__, NoPermissionError):
                raise ConfigError(
                    f"the user of [chatd] redis_url is not allowed enough ({error.__cause__}); "
                    "allow it INFO and PING, which every start asks"
                ) from error
            if (doubt := _doubt(error)) is not None:
                raise ConfigError(
                    f"[chatd] redis_url begins with rediss://, and certificates keep Redis and "
                    f"chatd apart ({doubt}); ssl_ca_certs has to name the CA that signed Redis' "
                    "certificate, its host has to be in that certificate, and where Redis asks for "
                    "one, ssl_certfile and ssl_keyfile have to name one that it trusts"
                ) from error
            if time.monotonic() >= until:
                raise
            time.sleep(0.1)


def _doubt(error: BaseException | None) -> str | None:
    """What one side of a TLS connection says against the other's certificate, if it was that."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            reason = str(error.reason)
            if isinstance(error, ssl.SSLCertVerificationError):
                return str(error.verify_message)
            return reason if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason else None
        error = error.__cause__ or error.__context__
    return None


def check_durability(client: redis.Redis, durability: str) -> None:
    """Hold what Redis does with its writes against what the configuration promises.

    Raises ``ConfigError`` when ``durability`` is "always" and Redis does not sync each write before
    it confirms it, and ``QueueUnavailable``. What Redis may not be asked is warned of.
    """
    kept = kept_on_disk(client)
    if kept is None:
        _log.warning(
            "Redis does not say whether it keeps its data on disk (CONFIG GET is not allowed); "
            'durability = "%s" is taken on trust',
            durability,
        )
        return
    synced, found = kept
    if durability == "always" and synced != "always":
        raise ConfigError(
            f'[chatd] durability = "always", and Redis runs with {found}: a power failure could '
            "take back what it has confirmed; start Redis with appendonly yes, appendfsync "
            f"always and {_SKIPS} no (chatd's own: stop `chatd up` and start it again), or set "
            'durability = "everysec"'
        )
    if synced == "none":
        _log.warning(
            "Redis has no append-only file: when it ends, all jobs are lost; set appendonly yes"
        )
    elif synced == "no":
        _log.warning(
            "Redis does not sync its append-only file at all times (%s): a power failure may take "
            "back half a minute of jobs; set appendfsync everysec and %s no",
            found,
            _SKIPS,
        )


def kept_on_disk(client: redis.Redis) -> tuple[str, str] | None:
    """When Redis syncs its append-only file, and what of its settings says so.

    ``always``, ``everysec``, ``no``, which is what it comes down to if nothing is synced while the
    file is rewritten, or ``none`` without such a file. ``None`` when it does not say. Raises
    ``QueueUnavailable``.
    """
    try:
        with redis_errors():
            found = client.config_get("appendonly", "appendfsync", _SKIPS)
    except QueueUnavailable as error:
        if isinstance(error.__cause__, ResponseError):
            return None
        raise
    if "appendonly" not in found:
        return None
    if found["appendonly"] != "yes":
        return "none", "no append-only file"
    if found.get(_SKIPS) == "yes":
        return "no", f"{_SKIPS} yes"
    synced = str(found.get("appendfsync", ""))
    return synced, f"appendfsync {synced}"


def _refuses(error: ResponseError) -> bool:
    """Whether Redis takes no writes at all just now; it says so of a script's writes as well."""
    # Its disk is full or fails; too few of its replicas are there.
    return str(error).startswith(("MISCONF", "NOREPLICAS"))


class _RedisErrors:
    """Turns whatever redis-py raises inside into ``QueueUnavailable``.

    A script that stops at its own error (the message names ``user_script``) is a defect or a key
    changed by hand: it is logged, and the callers do not hear that Redis was away.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, RedisError):
            return
        if type(error) is ResponseError and "user_script" in str(error) and not _refuses(error):
            _log.error("a script of chatd failed in Redis: %s", str(error)[:500])
            raise QueueUnavailable(
                "a script of chatd failed in Redis, which is a defect of chatd or of a key that "
                "was changed by hand; the log has the line",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        raise QueueUnavailable(
            f"Redis cannot be used just now ({type(error).__name__}: {str(error)[:200]}); "
            "try again, and look at `chatd check`",
            retry_after_s=RETRY_AFTER_S,
        ) from error


_redis_errors = _RedisErrors()


def redis_errors() -> _RedisErrors:
    """A ``with`` block in which trouble with Redis is ``QueueUnavailable``."""
    return _redis_errors
