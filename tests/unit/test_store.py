"""The store's scripts on fakeredis."""

from __future__ import annotations

import fakeredis
import pytest

from tests.store_suite import StoreSuite


@pytest.fixture
def client():
    return fakeredis.FakeRedis(decode_responses=True)


class TestStore(StoreSuite):
    """The suite on a fake server."""
