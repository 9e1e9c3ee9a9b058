"""What the wire tests share: scripted upstreams, over HTTP and HTTPS, and providers at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chat.providers.upstream import Upstream
from chat.types import Provider
from tests.upstream import CERTIFICATE, ScriptedUpstream
from tests.wire.providers import NOW, SECRETS, provider_at

#: What the environment of whoever runs the tests must not add to a call.
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxies and no .netrc of the machine, and the scripted upstream's certificate trusted."""
    for name in _PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted upstream over plain HTTP."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture(params=["http", "https"])
def any_upstream(request: pytest.FixtureRequest) -> Iterator[ScriptedUpstream]:
    """A scripted upstream, over HTTP and over HTTPS."""
    with ScriptedUpstream(tls=request.param == "https") as server:
        yield server


@pytest.fixture
def make_upstream() -> Iterator[Callable[..., Upstream]]:
    """Makes an ``Upstream`` that is closed after the test."""
    made: list[Upstream] = []

    def make(base_url: str, name: str = "openrouter", **options: Any) -> Upstream:
        options = {"secret": SECRETS[name], "now": lambda: NOW, **options}
        made.append(Upstream(name, base_url, **options))
        return made[-1]

    yield make
    for upstream in made:
        upstream.close()


@pytest.fixture
def make_provider(make_upstream: Callable[..., Upstream]) -> Callable[..., Provider]:
    """Makes a provider whose base URLs lead to a scripted upstream, with the paths of the real."""

    def make(name: str, server: ScriptedUpstream, *, api: str = "auto", **options: Any) -> Provider:
        def upstream_at(path: str) -> Upstream:
            return make_upstream(server.url + path, name, **options)

        return provider_at(name, upstream_at, api=api)

    return make
