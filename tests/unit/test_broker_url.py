"""Front end and workers read one redis_url, with two libraries that read it differently."""

from __future__ import annotations

import pytest

from workers.app import broker_url, make_celery


@pytest.mark.parametrize(
    ("redis_url", "expected"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://localhost", "redis://localhost/0"),
        ("redis://localhost:6380/7", "redis://localhost:6380/7"),
        ("redis://localhost?db=7", "redis://localhost/7"),
        ("redis://:p%40ss@[::1]:6379/1", "redis://:p%40ss@[::1]:6379/1"),
        ("redis://localhost/1?username=me&password=p%2Fss", "redis://me:p%2Fss@localhost/1"),
        # Left to itself, kombu trusts any certificate.
        ("rediss://host", "rediss://host/0?ssl_cert_reqs=required"),
        (
            "rediss://me:pass@host:6380/2?ssl_check_hostname=true&ssl_ca_certs=%2Fca+1.pem",
            "rediss://me:pass@host:6380/2?ssl_cert_reqs=required&ssl_ca_certs=%2Fca+1.pem",
        ),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=1", "redis+socket:///run/redis.sock?virtual_host=1"),
        (
            "unix://me:p%40ss@/run/redis.sock?db=1",
            "redis+socket://me:p%40ss@/run/redis.sock?virtual_host=1",
        ),
        (
            "unix:///run/redis.sock?password=pass",
            "redis+socket://:pass@/run/redis.sock?virtual_host=0",
        ),
    ],
)
def test_celery_gets_the_same_server_and_database(redis_url, expected):
    """Else jobs would be written into one database and looked for in another."""
    app = make_celery(redis_url)

    assert broker_url(redis_url) == expected
    assert app.conf.broker_url == app.conf.result_backend == expected
