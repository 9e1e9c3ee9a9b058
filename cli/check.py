"""What ``chatd check`` and ``chatd providers`` report: whether the configuration is fit to run.

Values only, ready to print. Nothing here shows a key, and nothing but ``ping`` leaves the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from chat.config import PLACES, ChatdConfig, LimitConfig, ProviderConfig
from chat.connection import embedded_url_file
from chat.errors import ChatError, ConfigError
from chat.keys import resolve_key
from chat.registry import Names, registered
from cli.instance import running_pid

__all__ = ["Level", "ProviderRow", "Report", "Row", "check", "provider_rows"]


class Level(StrEnum):
    """How a row bears on the whole: fine, worth knowing, or a reason not to start."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at, and what was found."""

    level: Level
    subject: str
    found: str

    def __str__(self) -> str:
        return f"{self.level.value:<6}{self.subject:<14}{self.found}"


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One provider: where it is called, and what registers it or is missing.

    ``key`` is "present", "absent" or "not needed", never the key.
    """

    name: str
    registered: bool
    key: str
    base_url: str
    concurrency: int
    why: str

    def __str__(self) -> str:
        state = "registered" if self.registered else "not registered"
        return (
            f"{self.name:<14}{state:<16}key {self.key:<12}{self.concurrency:>4} at a time"
            f"  {self.base_url or '(no URL)'}  {self.why}"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """All rows of one check."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether chatd can run with this; a provider that is not registered is no fault."""
        return all(row.level is not Level.WRONG for row in self.rows)

    @property
    def lines(self) -> tuple[str, ...]:
        """The rows as text, one line each."""
        return tuple(str(row) for row in self.rows)


def provider_rows(config: ChatdConfig, environ: Mapping[str, str]) -> tuple[ProviderRow, ...]:
    """All five providers, the default first."""
    names = registered(config, environ)
    return tuple(
        ProviderRow(
            name=provider.name,
            registered=provider.name in names.registered,
            key=_key_state(provider, environ),
            base_url=provider.base_url,
            concurrency=provider.concurrency,
            why=_why(names, provider.name),
        )
        for provider in config.providers.values()
    )


def check(config: ChatdConfig, environ: Mapping[str, str], ping: Callable[[], object]) -> Report:
    """Look at the file in use, the providers, their limits and Redis.

    ``ping`` returns when Redis answers, and raises a ``ChatError`` or ``ConfigError`` when it does
    not. Without a configured Redis that is only worth a note: ``chatd up`` brings one.
    """
    return Report(
        (
            _file_row(config),
            *_provider_checks(config, environ),
            _redis_row(config, ping),
        )
    )


def _file_row(config: ChatdConfig) -> Row:
    if config.source is not None:
        return Row(Level.OK, "configuration", str(config.source))
    searched = ", ".join(["$LAKEHOUSE_CONFIG", *map(str, PLACES)])
    return Row(Level.NOTE, "configuration", f"no file, so the defaults (searched: {searched})")


def _provider_checks(config: ChatdConfig, environ: Mapping[str, str]) -> list[Row]:
    rows = [
        Row(Level.OK, row.name, f"registered, key {row.key}: {row.why}")
        if row.registered
        else Row(Level.NOTE, row.name, f"not registered, key {row.key}: {row.why}")
        for row in provider_rows(config, environ)
    ]
    names = registered(config, environ)
    rows += [
        Row(Level.OK, name, f"limits: {'; '.join(map(_shown, config.providers[name].limits))}")
        for name in names.names
        if config.providers[name].limits
    ]
    if not names.names:
        rows.append(
            Row(Level.WRONG, "providers", "none is registered; set ollama_url or a provider's key")
        )
    return rows


def _shown(limit: LimitConfig) -> str:
    numbers = (
        (limit.requests_per_minute, "requests/minute"),
        (limit.requests_per_day, "requests/day"),
        (limit.tokens_per_minute, "tokens/minute"),
    )
    told = [f"{number} {unit}" for number, unit in numbers if number is not None]
    each = " each" if limit.per_model else ""
    return f"{limit.match}{each} {', '.join(told) or 'learned'}"


def _redis_row(config: ChatdConfig, ping: Callable[[], object]) -> Row:
    try:
        ping()
    except (ChatError, ConfigError) as error:
        if config.redis_url:
            return Row(Level.WRONG, "redis", str(error))
        if running_pid(config.data_dir) is not None:
            log = embedded_url_file(config).with_name("redis.log")
            return Row(Level.WRONG, "redis", f"{error}; what Redis says of it stands in {log}")
        return Row(Level.NOTE, "redis", f"not running yet; `chatd up` starts it ({error})")
    return Row(Level.OK, "redis", "answers")


def _why(names: Names, provider: str) -> str:
    return names.registered.get(provider) or str(names.missing[provider])


def _key_state(provider: ProviderConfig, environ: Mapping[str, str]) -> str:
    if not provider.key_env:
        return "not needed"
    return "absent" if resolve_key(provider, environ).secret is None else "present"
