"""Reading an error answer: its words, and its hints about time."""

from __future__ import annotations

import pytest

from chat.providers.error_text import ErrorText, printable, read_error, status_inside
from chat.providers.retry_hint import seconds_until_midnight, seconds_until_retry

NOW = 1_790_000_000.0
SILENT = ErrorText("", "")


@pytest.mark.parametrize(
    ("headers", "said", "seconds"),
    [
        pytest.param({}, SILENT, None, id="no hint"),
        pytest.param({"retry-after": "5"}, SILENT, 5.0, id="seconds"),
        pytest.param({"retry-after": " 1.5 "}, SILENT, 1.5, id="a fraction"),
        pytest.param({"retry-after": "0"}, SILENT, 0.0, id="at once"),
        pytest.param({"retry-after": "-3"}, SILENT, None, id="less than nothing"),
        pytest.param({"retry-after": "soon"}, SILENT, None, id="a word"),
        pytest.param({"retry-after": ""}, SILENT, None, id="empty"),
        pytest.param({"retry-after": "inf"}, SILENT, None, id="infinity"),
        pytest.param({"retry-after": "nan"}, SILENT, None, id="not a number"),
        pytest.param({"retry-after": "99999999999"}, SILENT, None, id="thousands of years"),
        pytest.param({"retry-after": "Mon, 21 Sep 2026 14:14:20 GMT"}, SILENT, 60.0, id="a date"),
        pytest.param(
            {"retry-after": "Mon, 21 Sep 2026 16:14:20 +0200"}, SILENT, 60.0, id="a date elsewhere"
        ),
        pytest.param(
            {"retry-after": "Mon, 21 Sep 2026 14:14:20 -0000"}, SILENT, 60.0, id="a date, no zone"
        ),
        pytest.param(
            {"retry-after": "Mon, 21 Sep 2026 14:00:00 GMT"}, SILENT, 0.0, id="a date gone by"
        ),
        pytest.param({"retry-after": "Mon, 99 Sep 2026 99:99:99 GMT"}, SILENT, None, id="no date"),
        pytest.param(
            {"x-ratelimit-reset": "1790000060000"}, SILENT, 60.0, id="epoch in milliseconds"
        ),
        pytest.param({"x-ratelimit-reset": "1790000060"}, SILENT, 60.0, id="epoch in seconds"),
        pytest.param({"x-ratelimit-reset": "60"}, SILENT, None, id="no epoch at all"),
        pytest.param({"x-ratelimit-reset": "9" * 400}, SILENT, None, id="an endless epoch"),
        pytest.param(
            {"retry-after": "5", "x-ratelimit-reset": "1790000060"},
            SILENT,
            5.0,
            id="Retry-After first",
        ),
        pytest.param(
            {"retry-after": "soon", "x-ratelimit-reset": "1790000060"},
            SILENT,
            60.0,
            id="the first that can be read",
        ),
        pytest.param({}, ErrorText("", "", retry_after=40), 40.0, id="in the body"),
        pytest.param({}, ErrorText("", "", retry_after="40"), 40.0, id="in the body, as text"),
        pytest.param({}, ErrorText("", "", retry_after=True), None, id="in the body, nonsense"),
        pytest.param({}, ErrorText("", "", retry_after=10**400), None, id="in the body, endless"),
        pytest.param(
            {}, ErrorText("", "", ratelimit_reset=1790000060000), 60.0, id="epoch in the body"
        ),
        pytest.param({}, ErrorText("", "", resets_at="2026-09-21T14:14:20Z"), 60.0, id="timestamp"),
        pytest.param({}, ErrorText("", "", resets_at="tomorrow"), None, id="no timestamp"),
        pytest.param({}, ErrorText("", "", resets_at=5), None, id="timestamp of a wrong type"),
        pytest.param({"retry-after-ms": "250"}, SILENT, 0.25, id="milliseconds"),
        pytest.param(
            {"retry-after-ms": "1500", "retry-after": "2"}, SILENT, 1.5, id="the more exact first"
        ),
        pytest.param(
            {"retry-after-ms": "soon", "retry-after": "2"}, SILENT, 2.0, id="milliseconds, a word"
        ),
    ],
)
def test_a_hint_is_read_in_seconds(
    headers: dict[str, str], said: ErrorText, seconds: float | None
) -> None:
    """From headers and body, in all the shapes that occur."""
    assert seconds_until_retry(headers, said, now=NOW, limited=True) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        pytest.param("Rate limit reached. Please try again in 20s. Visit x", 20.0, id="OpenAI"),
        pytest.param("Please try again in 6m0s.", 360.0, id="OpenAI, minutes"),
        pytest.param("Please try again in 18.642s.", 18.642, id="OpenAI, a fraction"),
        pytest.param("Please try again in 644ms.", 0.644, id="OpenAI, milliseconds"),
        pytest.param("Please try again in 1h2m3s.", 3723.0, id="OpenAI, hours"),
        pytest.param("Please retry after 12 seconds.", 12.0, id="Azure OpenAI"),
        pytest.param("All are at capacity. Retry after 40 seconds.", 40.0, id="OpenRouter"),
        pytest.param("Limit reached. It will reset in 2hr 10min.", 7800.0, id="OpenCode, hours"),
        pytest.param("Quota exceeded. Retry in 3 days.", 259_200.0, id="OpenCode, days"),
        pytest.param("Resets in 1 day", 86400.0, id="OpenCode, one day"),
        pytest.param("server busy, please try again.", None, id="no time"),
        pytest.param("try again in 5", None, id="no unit"),
        pytest.param("try again in 5 months", None, id="another unit"),
        pytest.param("try again in 20 stars", None, id="no unit, but a word"),
        pytest.param("we tried in 20s", None, id="about something else"),
        pytest.param("try again in 999999999 days", None, id="millions of years"),
        pytest.param(f"try again in {'9' * 4000}s", None, id="an endless number"),
    ],
)
def test_a_hint_in_words_is_read_in_seconds(message: str, seconds: float | None) -> None:
    """As upstreams write it; where they only ask for patience there is no hint."""
    said = read_error({"error": {"message": message}})

    found = seconds_until_retry({}, said, now=NOW, limited=True)

    assert found == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        pytest.param({"reset-requests": "6m0s"}, 360.0, id="Go's notation"),
        pytest.param({"reset-requests": "1.5s"}, 1.5, id="a fraction"),
        pytest.param({"reset-tokens": "250ms"}, 0.25, id="milliseconds"),
        pytest.param({"reset-tokens": "12"}, 12.0, id="a bare number"),
        pytest.param({"reset-tokens": "1790000060"}, None, id="no length of time, but an epoch"),
        pytest.param({"reset-requests": "soon"}, None, id="a word"),
        pytest.param({"reset-requests": "-1"}, None, id="less than nothing"),
        pytest.param({"reset-requests": "0s", "reset-tokens": "0"}, None, id="no limit at all"),
        pytest.param({"reset-requests": "1s", "reset-tokens": "2s"}, 2.0, id="the later one"),
        pytest.param(
            {"reset-requests": "2h", "reset-tokens": "9s", "remaining-requests": "5"},
            9.0,
            id="requests are left, so it was the tokens",
        ),
        pytest.param(
            {"reset-requests": "2s", "reset-tokens": "9s", "remaining-requests": "0"},
            2.0,
            id="no request is left",
        ),
        pytest.param(
            {"reset-requests": "2s", "reset-tokens": "9s", "remaining-requests": "-1"},
            9.0,
            id="nobody knows what is left",
        ),
    ],
)
def test_the_limits_that_openai_tells_are_a_hint(
    limits: dict[str, str], seconds: float | None
) -> None:
    """The one that refused the call counts, as far as the answer tells which it was."""
    headers = {f"x-ratelimit-{name}": value for name, value in limits.items()}

    assert seconds_until_retry(headers, SILENT, now=NOW, limited=True) == seconds


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        pytest.param({"x-ratelimit-reset": "1790000060"}, SILENT, id="reset"),
        pytest.param({"x-ratelimit-reset-requests": "60s"}, SILENT, id="reset of requests"),
        pytest.param({}, ErrorText("", "", ratelimit_reset=1790000060000), id="in the body"),
    ],
)
def test_the_window_of_a_limit_is_no_hint_when_nothing_was_limited(
    headers: dict[str, str], said: ErrorText
) -> None:
    """Some upstreams send it with every answer."""
    assert seconds_until_retry(headers, said, now=NOW, limited=False) is None
    assert seconds_until_retry(headers, said, now=NOW, limited=True) == 60.0


def test_hints_are_taken_in_the_order_of_their_worth() -> None:
    """What was said of this very call comes before what is known of its limits."""
    headers = {
        "retry-after-ms": "1000",
        "retry-after": "2",
        "x-ratelimit-reset": "1790000003",
        "x-ratelimit-reset-requests": "5s",
    }
    said = ErrorText("", "try again in 4s")
    found = []
    while headers:
        found.append(seconds_until_retry(headers, said, now=NOW, limited=True))
        headers.pop(next(iter(headers)))

    assert found == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        pytest.param(NOW, 35_200.0, id="in the afternoon"),
        pytest.param(1_790_035_199.5, 0.5, id="just before"),
        pytest.param(1_790_035_200.0, 86_400.0, id="just then"),
    ],
)
def test_midnight_is_that_of_utc(now: float, seconds: float) -> None:
    """The next one, never the one that is now."""
    assert seconds_until_midnight(now) == seconds


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param({"error": "plain"}, "plain", id="Ollama"),
        pytest.param({"error": {"message": "m", "type": "t"}}, "m", id="Kimi"),
        pytest.param(
            {"type": "error", "error": {"type": "AuthError", "message": "m"}}, "m", id="OpenCode"
        ),
        pytest.param({"message": "m"}, "m", id="a bare message"),
        pytest.param({"detail": "d"}, "d", id="a detail"),
        pytest.param({"model": "x"}, "", id="nothing that is a message"),
        pytest.param({"error": ["x"]}, "", id="an error of a wrong type"),
        pytest.param({"error": {"message": {"a": 1}}}, "", id="a message of a wrong type"),
        pytest.param("Internal Server Error", "Internal Server Error", id="text"),
        pytest.param("<html><TITLE>502 Bad\nGateway</TITLE>", "502 Bad\nGateway", id="a page"),
        pytest.param("  <p>oops", "an HTML page", id="a page without a title"),
        pytest.param(None, "", id="null"),
        pytest.param(["x"], "", id="a list"),
        pytest.param(
            {"error": {"message": "m", "metadata": {"raw": "r", "provider_name": "P"}}},
            "m: P: r",
            id="the words of the provider behind",
        ),
        pytest.param(
            {"error": {"message": "m", "metadata": {"raw": '{"error": "r"}'}}},
            "m: r",
            id="its words in JSON",
        ),
        pytest.param(
            {"error": {"message": "m", "metadata": {"raw": '{"error": {"message": "r"}}'}}},
            "m: r",
            id="its words deeper in JSON",
        ),
        pytest.param(
            {"error": {"message": "m", "metadata": {"raw": '{"x": 1}'}}},
            'm: {"x": 1}',
            id="its words in other JSON",
        ),
        pytest.param(
            {"error": {"message": "m", "metadata": {"raw": "[" * 100_000}}},
            f"m: {'[' * 100_000}",
            id="nested without end",
        ),
    ],
)
def test_the_message_is_found_in_every_shape(body: object, message: str) -> None:
    """Five shapes of body, and what proxies put in their place."""
    assert read_error(body).message == message


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param({"code": 502}, 502, id="a number"),
        pytest.param({"code": "429"}, 429, id="a string"),
        pytest.param({"http_status": 404}, 404, id="another name"),
        pytest.param({"code": "server_error", "http_status": 503}, 503, id="code is a word"),
        pytest.param({"code": 200}, 500, id="not an error status"),
        pytest.param({"code": True}, 500, id="a boolean"),
        pytest.param({"code": [502]}, 500, id="a list"),
        pytest.param("text", 500, id="no object"),
    ],
)
def test_an_error_inside_an_answer_tells_its_status(error: object, status: int) -> None:
    """Where it does not, something is wrong at the upstream."""
    assert status_inside(error) == status


KEY = "sk-secret-0001"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain words", "plain words", id="as it is"),
        pytest.param("two\r\nlines\tand  more ", "two lines and more", id="one line"),
        pytest.param("a\x00b\x1b[31mc\x7fd\u202ee\u200bf", "a b [31mc d e f", id="no control"),
        pytest.param("half \ud83d pair", "half pair", id="half a surrogate pair"),
        pytest.param(f"key {KEY}!", "key ***!", id="the key"),
        pytest.param(f"{KEY}{KEY}", "******", id="the key twice"),
        pytest.param("x" * 299, "x" * 299, id="just short enough"),
        pytest.param("x" * 301, f"{'x' * 300}…", id="too long"),
        pytest.param(f"{'x' * 295}{KEY}", f"{'x' * 295}***", id="the key at the cut"),
        pytest.param(f"{' ' * 4090}{KEY}", "***", id="the key at the end of what is read"),
        pytest.param("", "", id="nothing"),
        pytest.param(f"<{KEY[:-2]}>", "<***>", id="the beginning of the key"),
        pytest.param(f"<{KEY[2:]}> {KEY[1:-1]}", "<***> ***", id="its end and its middle"),
        pytest.param(KEY[:11], KEY[:11], id="less than a piece of it"),
    ],
)
def test_words_of_an_upstream_are_made_fit_to_show(text: str, shown: str) -> None:
    """One line, short, without control characters and without the key."""
    assert printable(text, KEY) == shown
