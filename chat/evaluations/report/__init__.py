"""The report of an evaluation: one HTML file that needs nothing else, and no network."""

from __future__ import annotations

from chat.evaluations.report.page import write_report

__all__ = ["write_report"]
