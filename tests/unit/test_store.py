"""The store's scripts on fakeredis."""

from __future__ import annotations

import fakeredis
import pytest

from tests.store_model import explore
from tests.store_suite import StoreSuite


@pytest.fixture
def client():
    return fakeredis.FakeRedis(decode_responses=True)


class TestStore(StoreSuite):
    """The suite on a fake server."""


def test_the_books_balance_whatever_happens(client):
    """Any order of what front ends, workers, the keeper and time may do."""
    explore(client, examples=30, steps=40)
