"""Reads ``lakehouse.toml``, once and at the edge; what it says is handed in from there.

The file in the project documents every key. The providers' API keys are not in it: ``chat.keys``
finds those.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from chat.addresses import host_and_port, http_url_fault, redis_url_fault
from chat.errors import ConfigError, InvalidRequest
from chat.formats.strict_json import shown
from chat.prices import read_price
from chat.routing import PROVIDERS, resolve
from chat.settings import (
    ChatdConfig,
    GatewayConfig,
    KeyConfig,
    LimitConfig,
    PriceConfig,
    ProviderConfig,
)
from chat.tables import Table

__all__ = [
    "PLACES",
    "REDIS_URL",
    "ChatdConfig",
    "GatewayConfig",
    "KeyConfig",
    "LimitConfig",
    "PriceConfig",
    "ProviderConfig",
    "is_key_name",
    "load_config",
]

#: Where the file is looked for when neither an option nor a variable names one.
PLACES = (Path("lakehouse.toml"), Path("/etc/lakehouse/lakehouse.toml"))

#: The variable that goes before ``redis_url``: a URL with a password stands in no shared file then.
REDIS_URL = "CHATD_REDIS_URL"

_AS_REDIS_URL = 'write it as "redis://localhost:6379/0", or "" for chatd\'s own Redis'
_LONGEST_RETENTION_S = 365 * 86400
_MOST_PERMITS = 1000
_MOST_WORKERS = 16
_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
_TIER = re.compile(r"[A-Za-z0-9._-]+")
# Upper case only: a key written where its variable's name belongs is then refused, not printed.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    places: Sequence[Path] = PLACES,
) -> ChatdConfig:
    """Read the configuration, or take the defaults when there is no file.

    The file is ``path`` (the option ``--config``), else the one ``$LAKEHOUSE_CONFIG`` names, else
    the first of ``places`` that exists. A file that was named has to exist.

    Raises ``ConfigError`` for a file that cannot be read, is not TOML, or breaks a rule.
    """
    named = path or (Path(environ["LAKEHOUSE_CONFIG"]) if environ.get("LAKEHOUSE_CONFIG") else None)
    for place in [named] if named else places:
        try:
            text = place.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            if named is None:
                continue
            origin = "--config" if path else "LAKEHOUSE_CONFIG"
            raise ConfigError(
                f"{place}: there is no such file; correct {origin}, or leave it out to use"
                f" {' or '.join(str(place) for place in places)}"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{place}: cannot be read ({error.strerror}); let this user read it"
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{place}: is not UTF-8 text; save it as UTF-8") from error
        return _parse(text, place.absolute(), environ)
    return ChatdConfig(data_dir=_state_dir(environ), redis_url=_environments_redis_url(environ))


def _parse(text: str, source: Path, environ: Mapping[str, str]) -> ChatdConfig:
    try:
        values = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or int() on a number of thousands of digits.
        raise ConfigError(f"{source}: is not TOML: {error}; correct that line") from error
    top = Table(values, file=str(source))
    chatd, models = top.table("chatd"), top.table("models")
    gateway = _gateway(top.table("gateway"))
    top.finish()

    usual = ChatdConfig()
    api = chatd.choice("ollama_cloud_api", "auto", ("auto", "generate", "chat"))
    lost = {
        lane: chatd.choice(f"on_lost_call_{lane}", policy, ("fail", "retry"))
        for lane, policy in usual.on_lost_call.items()
    }
    allow_local_cloud = bool(chatd.flag("allow_local_cloud", usual.allow_local_cloud))
    weak_models = models.texts("weak_models")
    tiers = models.rest()
    _check_models(models, tiers, weak_models, allow_local_cloud=allow_local_cloud)
    config = ChatdConfig(
        bind=_bind(chatd, usual.bind),
        ollama_url=_url(chatd, "ollama_url", usual.ollama_url, empty=True),
        timeout_s=chatd.seconds("timeout_s", usual.timeout_s, zero=True) or usual.timeout_s,
        job_timeout_s=chatd.seconds("job_timeout_s", usual.job_timeout_s),
        max_timeout_s=chatd.seconds("max_timeout_s", usual.max_timeout_s),
        drain_s=chatd.seconds("drain_s", usual.drain_s, zero=True),
        redis_url=_redis_url(chatd, environ),
        durability=chatd.choice("durability", usual.durability, ("everysec", "always")),
        data_dir=_data_dir(chatd, environ),
        max_queued=chatd.whole("max_queued", usual.max_queued, at_most=10**8),
        max_queued_bytes=chatd.size("max_queued_bytes", usual.max_queued_bytes),
        body_limit=chatd.size("body_limit", usual.body_limit),
        file_limit=chatd.size("file_limit", usual.file_limit),
        file_retention_s=chatd.seconds("file_retention_s", usual.file_retention_s, zero=True),
        # Workers report every five seconds: one report may be late.
        worker_grace_s=chatd.seconds("worker_grace_s", usual.worker_grace_s, at_least=10),
        retention_s=chatd.whole("retention_s", usual.retention_s, at_most=_LONGEST_RETENTION_S),
        batch_max_lines=chatd.whole("batch_max_lines", usual.batch_max_lines, at_most=1_000_000),
        sync_retention_s=chatd.whole(
            "sync_retention_s", usual.sync_retention_s, at_most=_LONGEST_RETENTION_S
        ),
        max_lost_calls=chatd.whole("max_lost_calls", usual.max_lost_calls, at_most=1000),
        max_attempts=chatd.whole("max_attempts", usual.max_attempts, at_most=100),
        on_lost_call=lost,
        batch_share=chatd.share("batch_share", usual.batch_share),
        batch_min_share=chatd.share("batch_min_share", usual.batch_min_share),
        max_batch_wait_s=chatd.seconds("max_batch_wait_s", usual.max_batch_wait_s),
        interactive_reserve=chatd.share("interactive_reserve", usual.interactive_reserve),
        allow_local_cloud=allow_local_cloud,
        api_processes=chatd.whole("api_processes", usual.api_processes, at_most=256),
        log_level=chatd.choice("log_level", usual.log_level, _LOG_LEVELS),
        log_format=chatd.choice("log_format", usual.log_format, ("json", "text")),
        models_refresh_s=chatd.seconds("models_refresh_s", usual.models_refresh_s, zero=True),
        prices=tuple(read_price(price) for price in chatd.tables("prices")),
        keys=_keys(chatd),
        allowed_origins=_origins(chatd),
        providers=_providers(chatd.table("providers"), usual.providers, api),
        models=tiers,
        weak_models=weak_models,
        gateway=gateway,
        source=source,
    )
    chatd.finish()
    _check_together(chatd, config)
    return config


def _providers(
    table: Table, usual: Mapping[str, ProviderConfig], api: str
) -> dict[str, ProviderConfig]:
    providers = {name: _provider(table.table(name), usual[name]) for name in PROVIDERS}
    table.finish()
    providers["ollama_cloud"] = replace(providers["ollama_cloud"], api=api)
    return providers


def _provider(table: Table, usual: ProviderConfig) -> ProviderConfig:
    no_keys = f"API keys do not belong in this file; put {usual.key_name}=… into {usual.key_file}"
    hints = {"api_key": no_keys, "key": no_keys}
    base_url, go_base_url = usual.base_url, usual.go_base_url
    key_env, key_name, key_file = usual.key_env, usual.key_name, usual.key_file
    if usual.name == "ollama":
        needs_none = "local Ollama needs no key; leave it out"
        hints = dict.fromkeys(("api_key", "key", "key_env", "key_name", "key_file"), needs_none)
        hints["base_url"] = "write ollama_url in [chatd]"
    else:
        base_url = _url(table, "base_url", base_url)
        key_env = _variable(table, "key_env", key_env)
        key_name = _variable(table, "key_name", key_env)
        key_file = table.text("key_file", key_file)
    if go_base_url is not None:
        go_base_url = _url(table, "go_base_url", go_base_url)
    provider = ProviderConfig(
        name=usual.name,
        base_url=base_url,
        concurrency=table.whole("concurrency", usual.concurrency, at_most=_MOST_PERMITS),
        workers=table.whole("workers", usual.workers, at_most=_MOST_WORKERS),
        enabled=table.flag("enabled", None),
        go_base_url=go_base_url,
        key_env=key_env,
        key_name=key_name,
        key_file=key_file,
        limits=tuple(_limit(limit) for limit in table.tables("limits")),
        known=usual.known,
        learn=bool(table.flag("learn", usual.learn)),
        max_interactive=table.whole("max_interactive", usual.max_interactive, at_most=10**8),
        max_interactive_bytes=table.size("max_interactive_bytes", usual.max_interactive_bytes),
        max_batch=table.whole("max_batch", usual.max_batch, at_most=10**8),
        max_batch_bytes=table.size("max_batch_bytes", usual.max_batch_bytes),
    )
    table.finish(hints)
    return provider


def _limit(table: Table) -> LimitConfig:
    limit = LimitConfig(
        match=table.text("match", ""),
        requests_per_minute=table.whole_or_none("requests_per_minute"),
        requests_per_day=table.whole_or_none("requests_per_day"),
        tokens_per_minute=table.whole_or_none("tokens_per_minute"),
        per_model=bool(table.flag("per_model", default=False)),
    )
    table.finish()
    if not limit.match:
        raise table.error(
            "match", "is missing or empty", 'write the model ids it is for, as match = "*:free"'
        )
    return limit


def is_key_name(text: str) -> bool:
    """Whether a key may have this name: it is part of keys in Redis and of lines of log."""
    return _KEY_NAME.fullmatch(text) is not None


def _keys(chatd: Table) -> tuple[KeyConfig, ...]:
    keys: dict[str, KeyConfig] = {}
    hashes: set[str] = set()
    for table in chatd.tables("keys"):
        key = _key(table)
        own = {key.sha256, key.previous_sha256} - {""}
        if key.name in keys or own & hashes:
            raise table.error(
                "name",
                "is the name or has the key of an entry before it",
                "give each caller a name and a key of its own; for a new key of the same caller "
                "there is previous_sha256",
            )
        keys[key.name] = key
        hashes |= own
    return tuple(keys.values())


def _key(table: Table) -> KeyConfig:
    instead = "keys do not belong in this file; write the sha256 that `chatd keys new NAME` prints"
    key = KeyConfig(
        name=table.text("name", ""),
        sha256=table.text("sha256", ""),
        previous_sha256=table.text("previous_sha256", ""),
        admin=bool(table.flag("admin", default=False)),
        requests_per_minute=table.whole_or_none("requests_per_minute"),
        concurrency=table.whole_or_none("concurrency"),
    )
    table.finish({"key": instead, "api_key": instead})
    if not is_key_name(key.name):
        raise table.error(
            "name",
            "is not 1 to 64 letters, digits, '.', '_' and '-'",
            'write who has the key, as name = "evals"',
        )
    for name in ("sha256", "previous_sha256"):
        value = getattr(key, name)
        if not _SHA256.fullmatch(value) and (value or name == "sha256"):
            raise table.error(
                name,
                f"of {key.name} is not a SHA-256 of 64 digits in lower-case hexadecimal",
                "write the one that `chatd keys new NAME` prints",
                hide=True,
            )
    return key


def _origins(chatd: Table) -> tuple[str, ...]:
    origins = chatd.texts("allowed_origins")
    for origin in origins:
        parts = urlsplit(origin) if http_url_fault(origin) is None else None
        # As a browser writes it (RFC 6454): in lower case, without a path.
        if parts is None or f"{parts.scheme}://{parts.netloc.lower()}" != origin:
            raise chatd.error(
                "allowed_origins",
                f"has {shown(origin)}, which is not the origin of a page",
                'write scheme, host and port as a browser does, as "https://chat.example.com"',
            )
    return origins


def _gateway(table: Table) -> GatewayConfig:
    usual = GatewayConfig()
    gateway = GatewayConfig(
        bind=_bind(table, usual.bind), chatd_url=_url(table, "chatd_url", usual.chatd_url)
    )
    table.finish()
    return gateway


def _check_models(
    table: Table,
    tiers: Mapping[str, str],
    weak_models: Sequence[str],
    *,
    allow_local_cloud: bool,
) -> None:
    """Refuse tiers that shadow a routed form, stand for another tier, or lead nowhere."""
    for tier, model in tiers.items():
        if not _TIER.fullmatch(tier):
            raise table.error(
                tier,
                "is not a tier name",
                "use letters, digits, '.', '_' and '-' only, so that it hides no model id",
            )
        if model in tiers:
            raise table.error(
                tier,
                "stands for another tier",
                "write a model id; a local model of that name is ollama/<name>",
            )
        try:
            resolve(model, allow_local_cloud=allow_local_cloud)
        except InvalidRequest as error:
            raise table.error(tier, "is not a model id", error.message) from error
    for model in weak_models:
        try:
            resolve(model, tiers, allow_local_cloud=allow_local_cloud)
        except InvalidRequest as error:
            raise table.error("weak_models", "has an unusable entry", error.message) from error


def _check_together(table: Table, config: ChatdConfig) -> None:
    """Check the rules that hold between two keys."""
    for key, value in (("timeout_s", config.timeout_s), ("job_timeout_s", config.job_timeout_s)):
        if value > config.max_timeout_s:
            raise table.error(
                key,
                f"({value:g} s) is more than max_timeout_s = {config.max_timeout_s:g}",
                "lower the one or raise the other",
            )
    if config.body_limit > config.max_queued_bytes:
        raise table.error(
            "body_limit",
            f"({config.body_limit} bytes) is more than max_queued_bytes ="
            f" {config.max_queued_bytes}, so that the largest requests could never be queued",
            "lower the one or raise the other",
        )
    ollama = config.providers["ollama"]
    if ollama.enabled and not config.ollama_url:
        raise table.error(
            "ollama_url",
            "is empty although [chatd.providers.ollama] has enabled = true",
            "write its URL or leave enabled out",
        )


def _bind(table: Table, usual: str) -> str:
    bind = table.text("bind", usual)
    try:
        host_and_port(bind)
    except ValueError as error:
        raise table.error("bind", str(error), f'write host:port, as bind = "{usual}"') from error
    return bind


def _url(table: Table, key: str, usual: str, *, empty: bool = False) -> str:
    url = table.text(key, usual)
    if empty and not url:
        return ""
    fault = http_url_fault(url)
    if fault is not None:
        raise table.error(key, fault, f'write it as {key} = "{usual}"', hide="@" in url)
    return url.rstrip("/")


def _environments_redis_url(environ: Mapping[str, str]) -> str:
    url = environ.get(REDIS_URL, "").strip()
    fault = redis_url_fault(url) if url else None
    if fault is not None:
        raise ConfigError(f"{REDIS_URL} in the environment {fault}; {_AS_REDIS_URL}")
    return url


def _redis_url(table: Table, environ: Mapping[str, str]) -> str:
    url = table.text("redis_url", "")
    fault = redis_url_fault(url) if url else None
    if fault is not None:
        raise table.error("redis_url", fault, _AS_REDIS_URL, hide=True)
    return _environments_redis_url(environ) or url


def _variable(table: Table, key: str, usual: str) -> str:
    name = table.text(key, usual)
    if not _VARIABLE.fullmatch(name):
        raise table.error(
            key,
            "is not the name of a variable in upper case",
            f'write the name and not the key itself, as {key} = "{usual}"',
            hide=True,
        )
    return name


def _data_dir(table: Table, environ: Mapping[str, str]) -> Path:
    written = table.text("data_dir", "")
    if not written:
        return _state_dir(environ)
    if written == "~" or written.startswith("~/"):
        if not environ.get("HOME"):
            raise table.error(
                "data_dir", "begins with ~ but HOME is not set", "write a path from the root"
            )
        return Path(environ["HOME"], written[2:])
    return Path(written)


def _state_dir(environ: Mapping[str, str]) -> Path:
    """Where state goes unless ``data_dir`` says: as the XDG base directory specification has it.

    A service account often has a home that does not exist or that it may not write to; its state
    then goes below the working directory.
    """
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    if xdg.is_absolute():  # The specification tells to ignore relative ones.
        return xdg / "chatd"
    home = Path(environ.get("HOME", ""))
    if home.is_absolute() and home.is_dir():
        state = home / ".local" / "state" / "chatd"
        nearest = next(place for place in (state, *state.parents) if place.exists())
        if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
            return state
    return Path("var")
