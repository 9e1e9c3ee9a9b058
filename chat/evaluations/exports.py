"""The results for other programs, row by row: CSV for spreadsheets, JUnit for CI systems."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

from chat.types import JSON

__all__ = ["junit", "rows_to_csv"]

_PLAIN = (
    "sample",
    "model",
    "repeat",
    "status",
    "cached",
    "finish_reason",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "queue_ms",
    "latency_ms",
    "job_id",
)
#: What makes a spreadsheet take a text for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: Characters of an answer that stand in a failure.
_LONGEST_ANSWER = 2000
#: Characters that XML 1.0 has no way to write.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def rows_to_csv(rows: Iterable[JSON], scorers: Sequence[str], out: TextIO) -> None:
    """One line for each row, with a column for each scorer; an error is no score, so it is empty.

    A text that a spreadsheet would run as a formula has an apostrophe before it.
    """
    writer = csv.writer(out)
    judged = [f"score: {name}" for name in scorers]
    writer.writerow([*_PLAIN, *judged, "error", "expected", "question", "answer"])
    for row in rows:
        scores = [row["scores"].get(name, {}).get("score") for name in scorers]
        error = row["error"]["code"] if row["error"] else None
        texts = (_as_text(row["expected"]), row["messages"][-1].get("content"), row["answer"])
        cells = [*(row[name] for name in _PLAIN), *scores, error, *texts]
        writer.writerow([_cell(cell) for cell in cells])


def junit(summary: JSON, rows: Iterable[JSON], out: TextIO) -> None:
    """A test suite for each model, a test case for each sample, repeat and scorer.

    A score below 1 is a failure, an error an error, and what could not be read is skipped. Rows
    come one model after the other, as the results have them.
    """
    scorers = {
        model["name"]: [score["scorer"] for score in model["scores"]] for model in summary["models"]
    }
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n')
    out.write(f"<testsuites name={_attribute(summary['evaluation']['name'])}>\n")
    for model, of_model in groupby(rows, key=itemgetter("model")):
        out.write(f"  <testsuite name={_attribute(model)}>\n")
        for row in of_model:
            out.writelines(_case(row, scorer) for scorer in scorers[model])
        out.write("  </testsuite>\n")
    out.write("</testsuites>\n")


def _case(row: JSON, scorer: str) -> str:
    repeat = f" #{row['repeat']}" if row["repeat"] > 1 else ""
    name = f"{row['sample']}{repeat}: {scorer}"
    seconds = (row["latency_ms"] or 0) / 1000
    return (
        f"    <testcase classname={_attribute(row['model'])} name={_attribute(name)} "
        f'time="{seconds:.3f}">{_outcome(row, scorer)}</testcase>\n'
    )


def _outcome(row: JSON, scorer: str) -> str:
    """What is inside a test case: nothing if it passed."""
    if row["error"] is not None:
        return _element("error", row["error"]["code"], row["error"]["message"])
    score = row["scores"][scorer]
    if score["status"] == "errored":
        return _element("error", score["code"], score["reason"])
    if score["status"] == "unparsable":
        return _element("skipped", "unparsable", score["reason"])
    if score["score"] < 1:
        answer = (row["answer"] or "")[:_LONGEST_ANSWER]
        told = f"{score['reason'] or ''}\nexpected: {_as_text(row['expected'])}\nanswer: {answer}"
        return _element("failure", f"scored {score['score']:g}", told)
    return ""


def _element(name: str, message: str, text: str | None) -> str:
    return f"<{name} message={_attribute(message)}>{escape(_xml(text or ''))}</{name}>"


def _attribute(text: str) -> str:
    return quoteattr(_xml(text))


def _xml(text: str) -> str:
    """A text without what XML cannot have."""
    return _NOT_XML.sub("\ufffd", text)


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    # Half of a surrogate pair, which models do answer with, has no place in a UTF-8 file.
    text = value.encode("utf-8", "replace").decode("utf-8")
    return f"'{text}" if text.startswith(_FORMULA) else text
