"""The Celery application of one worker process, and the envelopes that wake it."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import kombu
from celery import Celery
from kombu.utils.json import dumps
from redis.connection import parse_url

from chat.addresses import TLS_FILES
from chat.connection import KEEPALIVE
from chat.jobs import TASK_NAME, queue_name
from chat.types import Lane
from workers.transport import Connection, GatedCycle

__all__ = ["broker_url", "envelope", "envelopes", "make_celery"]


def broker_url(redis_url: str) -> str:
    """``redis_url`` in kombu's spelling, which reads less from a URL than redis-py does.

    kombu takes the database from the path, or from ``virtual_host`` for a unix socket, and user
    and password from before the ``@`` alone. Over TLS it checks no certificate unless it is told
    to, where redis-py always does.
    """
    known = parse_url(redis_url)
    parts = urlsplit(redis_url)
    user, password = (quote(known.get(name) or "", safe="") for name in ("username", "password"))
    place = f"{user}:{password}@" if user or password else ""
    if parts.scheme == "unix":
        return f"redis+socket://{place}{parts.path}?virtual_host={known.get('db', 0)}"
    tls = [("ssl_cert_reqs", "required")] if parts.scheme == "rediss" else []
    files = [(name, value) for name, value in parse_qsl(parts.query) if name in TLS_FILES]
    place += parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, f"/{known.get('db', 0)}", urlencode(tls + files), ""))


def make_celery(redis_url: str) -> Celery:
    """A Celery application on ``redis_url`` with chatd's transport and the settings it needs."""
    url = broker_url(redis_url)
    app = Celery("chatd", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        broker_transport="workers.transport:Transport",
        broker_transport_options={
            # One list per queue: with the default four, BRPOP and LLEN would touch four keys.
            "priority_steps": [0],
            # Interactive before batch, in the order the worker is given the queues.
            "queue_order_strategy": GatedCycle,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "socket_keepalive_options": KEEPALIVE,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Redis refusing a command (a fail-over, a full disk) is no reason to end either.
        broker_channel_error_retry=True,
        # A worker holds what its threads are working on, and nothing ahead of that.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # After a reconnect Celery lowers the window by the running tasks, which our count has.
        worker_enable_prefetch_count_reduction=False,
        # `finish` writes the result, in Celery's format and in the same script as the state.
        task_ignore_result=True,
        result_backend_thread_safe=True,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # Limits and due times are the budgets' business; Celery's would hold messages in memory.
        worker_disable_rate_limits=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_hijack_root_logger=False,
        enable_utc=True,
    )
    app.amqp.Connection = Connection
    return app


def envelope(app: Celery, queue: str) -> str:
    """The message that wakes a worker on ``queue``, with ``@JOB@`` and ``@TAG@`` to fill in.

    Celery publishes once to a channel in memory that keeps what Redis' channel would have pushed,
    so the message is by construction what the installed Celery sends. The task has no arguments
    (its id is the job id), since the body is base64 of a constant that a script could not fill in.
    """
    messages: list[object] = []
    options = {"priority_steps": [0]}
    with kombu.Connection("memory://", transport_options=options) as connection:
        channel = connection.channel()
        channel._put = lambda _queue, message, **_: messages.append(message)
        channel._next_delivery_tag = lambda: "@TAG@"
        app.send_task(
            TASK_NAME,
            task_id="@JOB@",
            queue=queue,
            ignore_result=True,
            argsrepr="-",
            kwargsrepr="-",
            origin="chatd",
            # Else a name of this process, where every one is to send the same.
            reply_to="-",
            producer=app.amqp.Producer(channel, auto_declare=False),
        )
    # Without the spaces, which are a twentieth of what a waiting job takes of Redis' memory.
    text: str = dumps(messages[0], separators=(",", ":"))
    return text


def envelopes(app: Celery, providers: Iterable[str]) -> dict[str, str]:
    """The envelopes of the providers' queues, by queue.

    Whoever consumes or keeps a queue stores them where ``admit`` finds them, when it starts and
    every few seconds: so messages always fit the Celery that reads them, and a Redis that has lost
    its data works again.
    """
    queues = [queue_name(provider, lane) for provider in providers for lane in Lane]
    return {queue: envelope(app, queue) for queue in queues}
