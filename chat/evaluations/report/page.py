"""Writing the report: the data as JSON inside a page whose script shows it.

Answers are hostile: a model may write ``</script>``. So no text of theirs becomes markup: JSON has
``<`` escaped, the script puts texts in as text, and the page's policy lets nothing run but that
script, and nothing be fetched at all.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

from chat.types import JSON

__all__ = ["write_report"]

#: Characters of one text that the page has; the rest is in results.jsonl.
LONGEST_TEXT = 20_000
#: Bytes of rows above which answers with full marks lose their texts.
MOST_BYTES = 60_000_000

#: What the page shows of a row; the rest is in results.jsonl.
_SHOWN = (
    "sample",
    "model",
    "repeat",
    "status",
    "cached",
    "expected",
    "answer",
    "reasoning",
    "finish_reason",
    "error",
    "scores",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "queue_ms",
    "latency_ms",
    "job_id",
    "round",
    "attempts",
)


def write_report(
    path: Path,
    summary: JSON,
    rows: Iterable[JSON],
    *,
    longest_text: int = LONGEST_TEXT,
    most_bytes: int = MOST_BYTES,
) -> None:
    """Write the page for ``summary`` and its ``rows``, which are held in memory one at a time.

    A text of more than ``longest_text`` characters is cut, and says so; from ``most_bytes`` on,
    rows without a fault keep no texts. Raises ``OSError``.
    """
    assets = files("chat.evaluations.report") / "assets"
    style, script = ((assets / name).read_text("utf-8") for name in ("report.css", "report.js"))
    head, tail = (assets / "report.html").read_text("utf-8").split("<!-- rows -->")
    values = {
        "style": style,
        "script": script,
        "style-hash": _hash(style),
        "script-hash": _hash(script),
        "title": _markup(summary["evaluation"]["name"]),
        "summary": _json(summary),
    }
    with path.open("wb") as out:
        out.write(_filled(head, values))
        _write_rows(out, rows, longest_text, most_bytes)
        out.write(_filled(tail, values))


def _write_rows(out: BinaryIO, rows: Iterable[JSON], longest_text: int, most_bytes: int) -> None:
    """The rows as lines of a JSON list.

    Models are mostly sent the same messages: only the first row with them has them, the others say
    with ``asked`` which that is.
    """
    written, asked = 0, dict[bytes, int]()
    for number, row in enumerate(rows):
        shown: JSON = {name: row[name] for name in _SHOWN}
        key = hashlib.sha256(json.dumps(row["messages"]).encode()).digest()
        first = asked.setdefault(key, number)
        shown["asked"] = first
        if first == number:
            shown["messages"] = row["messages"]
        if written > most_bytes and _without_fault(row):
            shown.update(answer=None, reasoning=None, scores=_bare(row["scores"]), left_out=True)
        raw = _json(_cut(shown, longest_text)).encode()
        out.write(b",\n" if number else b"\n")
        out.write(raw)
        written += len(raw)


def _without_fault(row: JSON) -> bool:
    scores = row["scores"].values()
    return row["status"] == "answered" and all(score["score"] == 1 for score in scores)


def _bare(scores: JSON) -> JSON:
    """Scores without what judges said."""
    return {name: {**score, "reason": None, "judge": None} for name, score in scores.items()}


def _cut(value: object, longest: int) -> object:
    """A value with its long texts cut; each says how much is missing."""
    if isinstance(value, str) and len(value) > longest:
        return f"{value[:longest]}\n[… {len(value) - longest:,} more characters in results.jsonl]"
    if isinstance(value, dict):
        return {name: _cut(part, longest) for name, part in value.items()}
    if isinstance(value, list):
        return [_cut(part, longest) for part in value]
    return value


def _filled(template: str, values: dict[str, str]) -> bytes:
    """A part of the page with its {{names}} replaced, each where it stands and not inside another.

    Every name is known: the template is our own.
    """
    first, *parts = template.split("{{")
    text = [first]
    for part in parts:
        name, _, rest = part.partition("}}")
        text += [values[name], rest]
    return "".join(text).encode()


def _hash(text: str) -> str:
    """How the page's policy names a script or a style (W3C, Content Security Policy Level 3)."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(value: object) -> str:
    """JSON that ends no script element, in ASCII: half of a surrogate pair is an escape."""
    return json.dumps(value).replace("<", "\\u003c")


def _markup(text: str) -> str:
    """A text as character references."""
    safe = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(part if part.isalnum() or part == " " else f"&#{ord(part)};" for part in safe)
