"""A system that runs and can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from bench.processes import cpu_s, family, resident_mib

__all__ = ["Target", "answers"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where it is asked and in which form, and its processes.

    ``parts`` has the first process of each component, whose children belong to it.
    """

    url: str
    form: str
    parts: Mapping[str, int]
    model: str = "echo"
    headers: Mapping[str, str] = field(default_factory=dict)

    def cpu_s(self) -> dict[str, float]:
        """Seconds of a core that each component has used so far."""
        return {name: sum(map(cpu_s, family(pid))) for name, pid in self.parts.items()}

    def resident_mib(self) -> dict[str, float]:
        """MiB of memory that each component has; what processes share is in each of them."""
        return {name: sum(map(resident_mib, family(pid))) for name, pid in self.parts.items()}


def answers(url: str, headers: Mapping[str, str] | None = None, model: str = "echo") -> bool:
    """Whether a chat is answered at this URL by now."""
    body: Any = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    with requests.Session() as http:
        http.trust_env = False
        try:
            return http.post(url, json=body, headers=headers, timeout=60).status_code == 200
        except requests.RequestException:
            return False
