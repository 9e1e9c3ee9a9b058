"""The rules of a request that its JSON Schema does not say, with the reason for each.

Schemathesis takes what a schema allows for a good request. Where chatd refuses such a one all the
same, the refusal has to name a parameter of this list: then it is one of these rules, and not a
difference between the document and the code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["RULES", "TEXT_IN_A_FORM", "Rule", "rule_for"]

#: Why chatd takes what the schema of a form seems to forbid.
TEXT_IN_A_FORM = "a part of a form is text, whatever type its value had"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule by the code and the parameter that a refusal names; ``why`` no schema has it."""

    code: re.Pattern[str]
    param: re.Pattern[str]
    message: re.Pattern[str]
    why: str


def _rule(param: str, message: str, why: str, *, code: str = "invalid_request") -> Rule:
    return Rule(re.compile(code), re.compile(param), re.compile(message, re.DOTALL), why)


_AT = r"\[\d+\]"

RULES = (
    _rule(
        rf"model|suite\.(name|(models|scorers){_AT}(\.(name|model|choices).*)?)",
        r"^[^;]*(\\[xuU]|…\").* must be ",
        "whether a character can be printed is in the tables of one version of Unicode",
    ),
    _rule(
        rf"model|suite\.(models|scorers){_AT}(\.model)?",
        "names no model|forward it to ollama.com",
        "where a name leads is in the configuration",
    ),
    _rule(
        r"max_tokens|max_completion_tokens|(.*\.)?seed|.*\.(max_tokens|index)|suite\.repeats|n"
        "|top_logprobs",
        r"is -?[0-9]+(\.0|e\+[0-9]+), but must be",
        "to a schema 1.0 is an integer; here nothing is taken for what it is not",
    ),
    _rule(r"(.*\.)?timeout_s", "max_timeout_s", "the limit is the configuration's"),
    _rule(
        r"tool_choice.*",
        "there are no tools|tools has no such function",
        "a choice has to be among the tools",
    ),
    _rule(
        rf"messages{_AT}\.tool_calls{_AT}\.function\.arguments",
        "holds a JSON object",
        "JSON inside of a string",
    ),
    _rule("max_completion_tokens|think", "send one of them", "two names of one thing differ"),
    _rule(rf"suite\.(models|scorers){_AT}", "as one before it", "names differ within a list"),
    _rule(
        rf"suite\.scorers{_AT}\.(pattern|extract|schema).*",
        "regular expression|JSON Schema",
        "patterns and schemas have to be such",
    ),
    _rule(rf"suite\.scorers{_AT}\.choices", "same score", "verdicts differ in their scores"),
    _rule(
        "Last-Event-ID",
        "Idempotency-Key|which is not over|must be the id of the last event",
        "which event came last counts where there is a stream, and is known of one job",
    ),
    _rule("input_file_id", "of purpose", "which files can be the input of a run"),
    _rule(
        "",
        "^evaluation .*(nothing to ask again|can be retried when|has no report)",
        "what an evaluation has come to by then",
    ),
    _rule("messages", "^image .* is no PNG", "whether bytes are an image that the provider takes"),
    _rule("", "answered 4", "the provider refused it", code="upstream_(rejected|auth)"),
)


def rule_for(code: str, param: str, message: str) -> Rule | None:
    """The rule that a refusal is for; ``None`` if it is none of them."""
    for rule in RULES:
        if (
            rule.code.fullmatch(code)
            and rule.param.fullmatch(param)
            and rule.message.search(message)
        ):
            return rule
    return None
