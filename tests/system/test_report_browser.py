"""An evaluation's report in a real browser: Chromium, driven by Selenium, without a network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.reports import HOSTILE, MODELS, a_report
from tests.waiting import eventually

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _found(*names: str) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser():
    program, driver = _found(*_BROWSERS), _found("chromedriver")
    if program is None or driver is None:
        # Where tests have to be complete, a missing browser is a fault of the place.
        assert "CHATD_CI" not in os.environ, "CI needs chromium and chromium-driver"
        pytest.skip("there is no Chromium with chromedriver on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    # Without the last one a large page may not fit into a container's shared memory.
    for argument in (
        "--headless=new",
        "--disable-gpu",
        "--window-size=1300,1400",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driven = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    yield driven
    driven.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return path, *a_report(path, 60)


@pytest.fixture
def page(browser, report):
    """The report as it was just opened."""
    opened(browser, report[0])
    yield browser
    # Whatever the policy refuses, and every error of the script, is in this log.
    assert browser.get_log("browser") == []


def opened(browser: webdriver.Chrome, path: Path, fragment: str = "") -> None:
    browser.get("about:blank")
    browser.get(f"{path.as_uri()}{fragment}")


def listed(page: webdriver.Chrome) -> list[str]:
    """The samples of the page of the list."""
    rows = page.find_elements(By.CSS_SELECTOR, "#list tbody tr")
    return [str(row.get_attribute("data-sample")) for row in rows]


def found(page: webdriver.Chrome) -> str:
    return page.find_element(By.ID, "found").text


def choose(page: webdriver.Chrome, name: str, value: str) -> None:
    Select(page.find_element(By.ID, f"by-{name}")).select_by_value(value)


def press(page: webdriver.Chrome, key: str) -> None:
    page.find_element(By.TAG_NAME, "body").send_keys(key)


def chosen(page: webdriver.Chrome) -> str:
    return page.find_element(By.CSS_SELECTOR, "#detail h3").text


def failing(rows, scorer=None, model=None) -> list[str]:
    """By a plain look at the rows: samples with a score below 1, in the order of the dataset."""
    ids = {
        row["sample"]
        for row in rows
        if model in (None, row["model"])
        for name, score in row["scores"].items()
        if scorer in (None, name) and score["score"] is not None and score["score"] < 1
    }
    return sorted(ids, key=lambda name: int(name[1:]))


def test_the_tables_have_the_figures_of_the_summary(page, report):
    _, summary, _ = report
    lines = page.find_elements(By.CSS_SELECTOR, "#scores tbody tr")
    assert len(lines) == len(MODELS)
    for line, model in zip(lines, summary["models"], strict=True):
        text = line.text
        assert text.startswith(model["name"])
        assert f"{model['answered']} of {model['total']}" in text
        for score in model["scores"]:
            assert f"{100 * score['mean']:.0f}" in text
            assert f"{100 * score['low']:.0f} to {100 * score['high']:.0f} %" in text
            assert f"{score['samples']} samples" in text
        for code, times in model["errors"].items():
            assert f"{times} {code}" in text
    pairs = page.find_elements(By.CSS_SELECTOR, "#comparisons tbody tr")
    assert len(pairs) == len(summary["comparisons"]) == 6
    for line, pair in zip(pairs, summary["comparisons"], strict=True):
        cells = [cell.text for cell in line.find_elements(By.CSS_SELECTOR, "th, td")]
        assert cells[:3] == [pair["scorer"], pair["b"], pair["a"]]
        assert [int(cell) for cell in cells[5:8]] == [pair["wins"], pair["losses"], pair["ties"]]


def test_the_plots_say_in_words_what_they_show(page):
    drawings = page.find_elements(By.CSS_SELECTOR, '#plots svg[role="img"]')
    titles = [title.text for title in page.find_elements(By.CSS_SELECTOR, "#plots figcaption")]
    assert [title.split(" ")[0] for title in titles] == ["Scores", "Model", "Queue", "Over"]
    assert len(drawings) == 4
    for drawing in drawings:
        assert MODELS[0] in str(drawing.get_attribute("aria-label"))
        assert drawing.find_elements(By.CSS_SELECTOR, "path, circle")


@pytest.mark.parametrize(
    ("scorer", "model"), [("", ""), ("right", ""), ("", MODELS[1]), ("clear", MODELS[2])]
)
def test_the_filter_shows_exactly_what_failed(page, report, scorer, model):
    choose(page, "scorer", scorer)
    choose(page, "model", model)
    choose(page, "filter", "failed")
    expected = failing(report[2], scorer or None, model or None)
    assert listed(page) == expected[:50]
    assert found(page) == f"{len(expected)} of 60 samples"


def test_errors_and_unparsable_verdicts_have_filters_of_their_own(page, report):
    rows = report[2]
    choose(page, "filter", "errored")
    errored = {
        row["sample"]
        for row in rows
        if row["error"] or any(score["status"] == "errored" for score in row["scores"].values())
    }
    assert set(listed(page)) == errored
    choose(page, "filter", "unparsable")
    unparsable = {
        row["sample"]
        for row in rows
        if any(score["status"] == "unparsable" for score in row["scores"].values())
    }
    assert set(listed(page)) == unparsable
    choose(page, "filter", "cached")
    assert set(listed(page)) == {row["sample"] for row in rows if row["cached"]}


def test_words_are_found_in_questions_and_answers(page):
    page.find_element(By.ID, "words").send_keys("63 boxes")
    assert listed(page) == ["q60"]
    page.find_element(By.ID, "words").send_keys(" and nothing")
    assert found(page) == "0 of 60 samples"


def test_keys_go_from_sample_to_sample(page):
    for key, sample in (("j", "q1"), ("j", "q2"), ("j", "q3"), ("k", "q2")):
        press(page, key)
        assert chosen(page) == f"Sample {sample}"
    press(page, "/")
    assert page.switch_to.active_element.get_attribute("id") == "words"
    page.switch_to.active_element.send_keys("j", Keys.TAB)
    assert chosen(page) == "Sample q2"  # It was typed, not pressed.


def test_a_sample_has_an_address(page, report):
    opened(page, report[0], "#sample=q55")
    assert chosen(page) == "Sample q55"
    assert "page 2 of 2" in page.find_element(By.ID, "pages").text
    page.execute_script("location.hash = '#sample=q7'")
    eventually(lambda: chosen(page) == "Sample q7", what="the page follows its address")


def test_answers_stand_side_by_side(page, report):
    row = next(row for row in report[2] if row["sample"] == "q2" and row["answer"])
    opened(page, report[0], "#sample=q2")
    answers = page.find_elements(By.CSS_SELECTOR, "#detail .answer")
    assert [answer.find_element(By.TAG_NAME, "h3").text for answer in answers] == list(MODELS)
    assert len({answer.rect["y"] for answer in answers}) == 1
    detail = page.find_element(By.ID, "detail").text
    assert row["answer"] in detail
    assert row["messages"][-1]["content"] in detail
    assert f"\n{row['expected']}\n" in detail
    assert "[object" not in detail


def test_a_hostile_answer_is_text(page, report):
    opened(page, report[0], "#sample=q4")
    # Asked inside the page: half of a surrogate pair does not come out of it.
    found_there = page.execute_script(
        "return document.querySelector('#detail .answer .text').textContent.includes(arguments[0])",
        HOSTILE.partition("\x00")[0],
    )
    assert found_there
    assert page.title == "pencils <b>&amp; – evaluation"
    assert not page.find_elements(By.CSS_SELECTOR, "main img, #head b")


def test_nothing_is_fetched(page):
    """Neither by the page nor by a script that somebody got into it."""
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    refused = page.execute_async_script(
        "const done = arguments[0];"
        "fetch('http://127.0.0.1:9/').then(() => done('sent'), (error) => done(String(error)))"
    )
    assert refused == "TypeError: Failed to fetch"
    told = page.get_log("browser")
    assert told
    assert all("Content Security Policy" in line["message"] for line in told)


def test_a_narrow_screen_does_not_scroll_sideways(page):
    before = page.get_window_size()
    page.set_window_size(500, 900)
    try:
        wide = page.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
    finally:
        page.set_window_size(before["width"], before["height"])


def test_thousands_of_samples_are_shown_a_page_at_a_time(browser, tmp_path):
    path = tmp_path / "large.html"
    _, rows = a_report(path, 2000)
    opened(browser, path)
    eventually(lambda: len(listed(browser)) == 50, within_s=60, what="the page is shown")
    choose(browser, "filter", "failed")
    expected = failing(rows)
    assert found(browser) == f"{len(expected):,} of 2,000 samples"
    browser.find_element(By.XPATH, "//button[text()='Next page']").click()
    assert listed(browser) == expected[50:100]
    assert browser.get_log("browser") == []
