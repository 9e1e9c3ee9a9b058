"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long it takes to think up an example says nothing of chatd. In a fresh clone the first of them
# waits a second for Hypothesis' tables of characters.
settings.register_profile("chatd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("chatd")
