"""How a connection to an upstream is made: proxies, certificates, .netrc, cookies, names, ports."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chat.errors import UpstreamError, UpstreamUnavailable
from chat.keys import Secret
from chat.providers.upstream import Reply, Upstream
from chat.types import Billed, Cancelled, Deadline
from tests.upstream import CERTIFICATE, Answer, End, ScriptedUpstream
from tests.waiting import eventually

ANSWER = {"done": True}
KEY = "sk-or-v1-test"


def post(upstream: Upstream) -> Reply:
    """One call that nobody stops."""
    return upstream.post("/x", {"q": 1}, deadline=Deadline.after(60), cancelled=Cancelled())


def unreachable(upstream: Upstream) -> UpstreamUnavailable:
    """The error of a call that does not get through."""
    with pytest.raises(UpstreamError) as caught:
        post(upstream)
    assert isinstance(caught.value, UpstreamUnavailable)
    assert caught.value.billed is Billed.NO
    assert KEY not in caught.value.message
    return caught.value


def free_port() -> int:
    """A port at which nothing listens any more."""
    with ScriptedUpstream() as server:
        return server.port


def test_a_refused_connection_names_the_host_and_what_to_check(
    make_upstream: Callable[..., Upstream],
) -> None:
    """Nothing was sent; a service that is being restarted will be back."""
    port = free_port()
    error = unreachable(make_upstream(f"http://127.0.0.1:{port}"))

    assert error.retryable
    assert error.message == (
        f"openrouter cannot be reached at 127.0.0.1:{port}: nothing accepts connections there; "
        "check the base URL and the network"
    )


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("nowhere.invalid", id="reserved to never exist"),
        pytest.param("a..b", id="an empty label"),
        pytest.param(f"{'x' * 70}.test", id="too long a label"),
    ],
)
def test_a_name_that_cannot_be_resolved_is_told(
    make_upstream: Callable[..., Upstream], host: str
) -> None:
    """RFC 2606 reserves .invalid; the others are no host names at all."""
    assert host in unreachable(make_upstream(f"http://{host}/v1")).message


def test_a_certificate_that_is_not_trusted_is_told_and_not_tried_again(
    make_upstream: Callable[..., Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default authorities do not know the upstream's certificate; waiting changes nothing."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with ScriptedUpstream(tls=True) as server:
        error = unreachable(make_upstream(server.url))

    assert "TLS certificate is not trusted (self-signed certificate)" in error.message
    assert not error.retryable


def test_a_missing_bundle_of_authorities_is_told(
    make_upstream: Callable[..., Upstream], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """REQUESTS_CA_BUNDLE is honoured, and may point nowhere."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with ScriptedUpstream(tls=True) as server:
        error = unreachable(make_upstream(server.url))

    assert "none.pem" in error.message


def test_https_at_a_port_that_speaks_http_is_told(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """The other scheme was meant."""
    wrong = f"https://127.0.0.1:{upstream.port}"

    assert "TLS" in unreachable(make_upstream(wrong)).message


def test_an_entry_in_netrc_never_replaces_the_key(
    upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """requests would take it over a header; without a key, none of it is sent either."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password secret\n", "utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    upstream.always(Answer.json(ANSWER))

    post(make_upstream(upstream.url))
    post(make_upstream(upstream.url, secret=None))

    with_key, without_key = upstream.requests
    assert with_key.headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in without_key.headers


@pytest.mark.parametrize(
    ("secret", "sent"),
    [
        pytest.param(Secret(KEY), f"Bearer {KEY}", id="with a key"),
        pytest.param(None, None, id="without"),
    ],
)
def test_a_name_and_a_password_in_the_url_are_not_sent(
    upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    secret: Secret | None,
    sent: str | None,
) -> None:
    """requests would put them into the header, in place of the key."""
    upstream.always(Answer.json(ANSWER))

    post(make_upstream(f"http://eve:pass@127.0.0.1:{upstream.port}", secret=secret))

    assert upstream.requests[0].headers.get("authorization") == sent


def test_cookies_are_not_kept(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """Calls of different people go through one session."""
    upstream.always(Answer.json(ANSWER, headers={"set-cookie": "who=alice; Path=/"}))
    client = make_upstream(upstream.url)

    post(client)
    post(client)

    assert "cookie" not in upstream.requests[1].headers


def test_a_proxy_of_the_environment_is_used(
    upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proxy is asked for the whole URL; here it answers by itself."""
    monkeypatch.setenv("http_proxy", upstream.url)
    upstream.always(Answer.json(ANSWER))

    assert post(make_upstream("http://models.test/v1")).fields.values == ANSWER
    assert upstream.requests[0].path == "http://models.test/v1/x"


def test_a_host_that_is_excepted_is_reached_without_a_proxy(
    upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NO_PROXY counts for a whole domain; another host still goes through the proxy."""
    monkeypatch.setenv("http_proxy", upstream.url)
    monkeypatch.setenv("no_proxy", ".invalid")
    upstream.always(Answer.json(ANSWER))

    assert "nowhere.invalid" in unreachable(make_upstream("http://nowhere.invalid/v1")).message
    assert upstream.requests == []
    assert post(make_upstream("http://models.test/v1")).fields.values == ANSWER


def test_a_bundle_of_authorities_is_also_known_by_its_other_name(
    make_upstream: Callable[..., Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CURL_CA_BUNDLE, as requests has it."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv("CURL_CA_BUNDLE", str(CERTIFICATE))
    with ScriptedUpstream(tls=True) as server:
        server.always(Answer.json(ANSWER))

        assert post(make_upstream(server.url)).fields.values == ANSWER


def test_every_call_of_an_upstream_goes_through_its_proxy(
    upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the first call has looked up holds for the next, and after a close as well."""
    monkeypatch.setenv("http_proxy", upstream.url)
    upstream.always(Answer.json(ANSWER))
    client = make_upstream("http://models.test/v1")

    post(client)
    client.close()
    post(client)
    client.get("/y", deadline=Deadline.after(60), cancelled=Cancelled())

    url = "http://models.test/v1"
    assert [request.path for request in upstream.requests] == [f"{url}/x", f"{url}/x", f"{url}/y"]
    assert [request.method for request in upstream.requests] == ["POST", "POST", "GET"]


def test_a_call_through_a_proxy_can_be_stopped(
    upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection to the proxy is the one to end, for a tunnel as well."""
    monkeypatch.setenv("http_proxy", upstream.url)
    monkeypatch.setenv("https_proxy", upstream.url)
    upstream.always(Answer.raw(upstream.closing))

    kinds = []
    for scheme in ("http", "https"):
        client = make_upstream(f"{scheme}://models.test/v1")
        with pytest.raises(UpstreamError) as caught:
            client.post("/x", {}, deadline=Deadline.after(0.5), cancelled=Cancelled())
        kinds.append((caught.value.code, caught.value.billed))
        upstream.wait_for_hang_up(upstream.requests[-1])

    # The CONNECT that opens a tunnel is no part of the call.
    assert kinds == [("upstream_timeout", Billed.MAYBE), ("upstream_timeout", Billed.NO)]
    assert [request.method for request in upstream.requests] == ["POST", "CONNECT"]


def test_a_proxy_that_refuses_is_told(
    upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its status is in the message; nothing reached the upstream."""
    monkeypatch.setenv("https_proxy", upstream.url)
    upstream.always(Answer.of(b"", 407))

    error = unreachable(make_upstream("https://models.test/v1"))

    assert "Tunnel connection failed: 407" in error.message


def test_a_socks_proxy_is_refused(
    make_upstream: Callable[..., Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call through it could not be stopped."""
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")

    assert "not through SOCKS" in unreachable(make_upstream("http://models.test/v1")).message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_very_machine_is_reached_without_a_proxy(
    upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
) -> None:
    """A proxy elsewhere could not reach a local Ollama."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{free_port()}")
    upstream.always(Answer.json(ANSWER))

    assert post(make_upstream(f"http://{host}:{upstream.port}")).fields.values == ANSWER


def test_an_idle_connection_that_the_upstream_closed_is_replaced(
    any_upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """Noticed before anything is sent, it costs nothing."""
    body = json.dumps(ANSWER).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    any_upstream.then(Answer.raw(head + body, End.CLOSE))
    any_upstream.always(Answer.json(ANSWER))
    client = make_upstream(any_upstream.url)
    post(client)
    eventually(any_upstream.connections[0].ended.is_set)

    assert post(client).fields.values == ANSWER
    assert len(any_upstream.connections) == 2


def test_a_request_that_got_no_answer_is_not_sent_twice(
    any_upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """Also not on a connection that served before: it may have been billed."""
    any_upstream.always(Answer.json(ANSWER))
    client = make_upstream(any_upstream.url)
    post(client)
    any_upstream.then(Answer.raw(End.CLOSE))

    with pytest.raises(UpstreamUnavailable) as caught:
        post(client)

    assert caught.value.billed is Billed.MAYBE
    assert caught.value.retryable
    assert len(any_upstream.requests) == 2


def test_an_answer_that_is_compressed_unasked_is_read(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """Some edges compress whatever the client says."""
    packed = gzip.compress(json.dumps(ANSWER).encode())
    upstream.always(Answer.of(packed, headers={"content-encoding": "gzip"}))

    assert post(make_upstream(upstream.url)).fields.values == ANSWER


def test_the_headers_of_an_answer_have_lower_case_names(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """So that a hint is found however it is written."""
    upstream.always(Answer.json(ANSWER, headers={"X-Generation-ID": "gen-1"}))

    assert post(make_upstream(upstream.url)).headers["x-generation-id"] == "gen-1"
