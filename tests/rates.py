"""A budget whose rates are reckoned by the shipped Lua, on a clock that a test moves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]

import chat

__all__ = ["MINUTE", "NOW", "RATES_FIELDS", "Budget", "settled"]

LUA = Path(chat.__file__).parent / "lua"
NOW = 1_790_000_000_000
MINUTE = 60_000
FUNCTIONS = (
    *("wait", "charge", "true_up", "current", "learned"),
    *("accepted", "refused", "overloaded", "quota"),
)

_runtime = LuaRuntime()
_rates: Any = _runtime.execute(
    "redis = {}\n"
    + (LUA / "prelude.lua").read_text(encoding="utf-8")
    + (LUA / "rates.lua").read_text(encoding="utf-8")
    + "return {fields = RATES_FIELDS, "
    + ", ".join(f"{name} = rates_{name}" for name in FUNCTIONS)
    + "}"
)
RATES_FIELDS = list(_rates.fields.values())


class Budget:
    """One budget on a clock of its own; its state is stored as text after every call."""

    def __init__(self, limit: Mapping[str, object] | None = None) -> None:
        self.limit = _runtime.table_from({"learn": True} if limit is None else limit)
        self.now = NOW
        self.b = _runtime.table()

    def _call(self, name: str, *arguments: object) -> Any:
        answer = _rates[name](self.b, *arguments)
        stored = {
            key: f"{value:.16g}" if isinstance(value, int | float) else value
            for key, value in self.b.items()
        }
        self.b = _runtime.table_from(
            {key: text if key == "why" else float(text) for key, text in stored.items()}
        )
        return answer

    def wait(self, cost: float = 0) -> int:
        answer = self._call("wait", self.limit, self.now, cost)
        return int(answer[0] if isinstance(answer, tuple) else answer)

    def why(self, cost: float = 0) -> str | None:
        answer = self._call("wait", self.limit, self.now, cost)
        return str(answer[1]) if answer[1] else None

    def start(self, cost: float = 0) -> int:
        """A call starts, whatever the rate says; returns when."""
        self._call("charge", self.limit, self.now, cost)
        return self.now

    def send(self, calls: int, every_ms: int) -> list[int]:
        """That many calls, one after the other."""
        started = []
        for _ in range(calls):
            started.append(self.start())
            self.now += every_ms
        return started

    def true_up(self, estimated: float, real: float) -> None:
        self._call("true_up", self.limit, estimated, real)

    def rate(self) -> float | None:
        rate = self._call("current", self.limit, self.now)
        return None if rate is None else float(rate)

    def learned(self) -> float:
        """The learned rate; 0 when there is none."""
        return float(self._call("learned", self.limit, self.now) or 0)

    def learns(self, *, learn: bool) -> None:
        self.limit.learn = learn

    def accept(self, started: int) -> None:
        self._call("accepted", self.limit, self.now, started)

    def refuse(self, started: int, retry_ms: int | None = None, chance: float = 0.5) -> bool:
        return bool(self._call("refused", self.limit, self.now, started, retry_ms, chance))

    def overload(self, started: int, retry_ms: int | None = None, chance: float = 0.5) -> None:
        self._call("overloaded", self.now, started, retry_ms, chance)

    def quota(self, until: int | None = None, chance: float = 0) -> None:
        self._call("quota", self.now, until, chance)

    def closed_ms(self) -> int:
        return max(0, int((self.b.closed_until or 0) - self.now))

    def open(self) -> None:
        """Let the cool-down pass."""
        self.now += self.closed_ms()

    def refuse_next(self, retry_ms: int | None = None) -> int:
        """Once open again, a call starts and is refused; returns the ms of the new cool-down."""
        self.open()
        started = self.start()
        self.now += 20
        assert self.refuse(started, retry_ms)
        return self.closed_ms()


def settled(rate: int = 10) -> Budget:
    """A budget that was refused after half a minute of sending, and has opened again."""
    budget = Budget()
    started = budget.send(30 * rate, 1000 // rate)
    budget.refuse(started[-1])
    budget.open()
    return budget
