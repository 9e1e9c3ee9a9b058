"""What chatd is told, as frozen values with their defaults. ``chat.config`` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from chat.addresses import host_and_port, is_loopback
from chat.errors import ConfigError
from chat.types import Lane

__all__ = [
    "ChatdConfig",
    "GatewayConfig",
    "KeyConfig",
    "LimitConfig",
    "PriceConfig",
    "ProviderConfig",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitConfig:
    """What a provider allows for the model ids that the glob ``match`` fits.

    ``per_model``: each of these models has a budget of its own, instead of one for all of them. A
    limit without numbers only separates: its models share a learned rate and a cool-down.
    """

    match: str
    per_model: bool = False
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceConfig:
    """What calls of the models that the glob ``match`` fits cost, in US dollars.

    ``match`` is held against full names, such as ``openrouter/anthropic/claude-sonnet-4.5``.
    """

    match: str
    input_per_million_usd: float
    output_per_million_usd: float
    per_call_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """One ``[chatd.providers.<name>]``.

    ``enabled`` is None unless the file says true or false. ``concurrency`` counts calls at the same
    time over all workers, of which ``chatd up`` starts ``workers``. Only OpenCode has a
    ``go_base_url``; only Ollama Cloud uses ``api``, which is ``auto``, ``generate`` or ``chat``.
    Local Ollama needs no key, so its ``key_*`` are empty. The first of ``limits`` that fits a model
    counts: those of the file, then ``known``, which are the provider's published ones. ``learn``
    says whether a rate is learned from refusals.
    ``max_interactive``, ``max_batch`` and their bytes bound what may wait in each lane.
    """

    name: str
    base_url: str
    concurrency: int
    workers: int = 1
    enabled: bool | None = None
    go_base_url: str | None = None
    key_env: str = ""
    key_name: str = ""
    key_file: str = ""
    api: str = "auto"
    limits: tuple[LimitConfig, ...] = ()
    known: tuple[LimitConfig, ...] = ()
    learn: bool = True
    max_interactive: int = 2_000
    max_interactive_bytes: int = 64 * 2**20
    max_batch: int = 100_000
    max_batch_bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyConfig:
    """One ``[[chatd.keys]]``: who may call chatd, by the hash of a key that only the caller has.

    ``name`` is the owner of what is made with the key. ``sha256`` is the hash in lower-case
    hexadecimal, ``previous_sha256`` that of the key before, which is accepted as well. ``admin``
    sees and may do everything. ``requests_per_minute`` and ``concurrency`` bound the calls, None
    for no bound.
    """

    name: str
    sha256: str
    previous_sha256: str = ""
    admin: bool = False
    requests_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """``[gateway]``: the lakehouse gateway's own address, and where it finds chatd."""

    bind: str = "127.0.0.1:3110"
    chatd_url: str = "http://127.0.0.1:3220"


def _default_providers() -> dict[str, ProviderConfig]:
    def keyed(
        name: str,
        base_url: str,
        concurrency: int,
        key: str,
        go_base_url: str | None = None,
        known: tuple[LimitConfig, ...] = (),
    ) -> ProviderConfig:
        return ProviderConfig(
            name=name,
            base_url=base_url,
            concurrency=concurrency,
            go_base_url=go_base_url,
            key_env=key,
            key_name=key,
            key_file=f"/etc/lakehouse/{name}.env",
            known=known,
        )

    each_model = LimitConfig(match="*", per_model=True)
    # OpenRouter docs, api_reference/limits: 20 free requests a minute; 50 or 1000 a day, which
    # depends on the account. Paid models have no limit of OpenRouter's, only of who runs them.
    free_and_paid = (LimitConfig(match="*:free", requests_per_minute=20), each_model)
    # routes/zen/util of anomalyco/opencode: Go has a quota of its own, free models one per address,
    # and everything else is limited by key, model and minute.
    go_free_and_paid = (
        LimitConfig(match="opencode-go/*"),
        LimitConfig(match="*-free"),
        each_model,
    )
    zen = "https://opencode.ai/zen"
    providers = (
        ProviderConfig(name="ollama", base_url="http://localhost:11434", concurrency=4),
        keyed("ollama_cloud", "https://ollama.com", 3, "OLLAMA_CLOUD_KEY"),
        keyed(
            "openrouter",
            "https://openrouter.ai/api/v1",
            16,
            "OPENROUTER_API_KEY",
            known=free_and_paid,
        ),
        keyed(
            "opencode",
            f"{zen}/v1",
            8,
            "OPENCODE_API_KEY",
            go_base_url=f"{zen}/go/v1",
            known=go_free_and_paid,
        ),
        keyed("kimi", "https://api.kimi.com/coding/v1", 8, "KIMI_API_KEY"),
    )
    return {provider.name: provider for provider in providers}


def _default_on_lost_call() -> dict[str, str]:
    return {Lane.INTERACTIVE.value: "fail", Lane.BATCH.value: "retry"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatdConfig:
    """Everything chatd is told. Times are seconds, sizes bytes; ``ChatdConfig()`` is the defaults.

    ``timeout_s`` bounds one upstream call and is the default deadline of an interactive job,
    ``job_timeout_s`` that of a batch job, ``max_timeout_s`` the most a request may ask for.
    ``retention_s`` is how long an ended job can be read, ``sync_retention_s`` the same for an
    answer a caller waited for. ``drain_s`` is how long the callers of a front end that is told to
    stop go on waiting, before they are handed the job's id. ``file_retention_s`` is how long a file
    is kept, 0 for ever. ``batch_max_lines`` bounds the requests of one batch.
    ``on_lost_call`` says per lane whether a job whose worker vanished
    in mid-call, or whose call ended without a word, is tried again (``retry``) or ends (``fail``).
    ``max_attempts`` counts the answers of one job that a retry may mend. ``batch_share`` of a
    provider's permits is what batch jobs may use while somebody waits there, ``batch_min_share`` of
    its grants what they get in any case once the oldest has waited ``max_batch_wait_s``.
    ``interactive_reserve`` of a day's requests is kept from batch jobs. ``redis_url`` is empty when
    chatd brings its own Redis. ``durability`` says when Redis has to have a write on disk: within
    about a second (``everysec``) or before it confirms it (``always``). ``models_refresh_s`` is the
    time between two fetches of a provider's list of models, 0 for none at all. The first of
    ``prices`` that fits a model counts. ``keys`` are those of callers; without any, everybody on
    this machine may do everything. Pages of ``allowed_origins`` may call from a browser.
    ``providers`` always has all five. ``source`` is the file, None for the defaults.

    Raises ``ConfigError`` for a ``bind`` that other machines can reach without a key, however it is
    built.
    """

    bind: str = "127.0.0.1:3220"
    ollama_url: str = "http://localhost:11434"
    timeout_s: float = 180.0
    job_timeout_s: float = 86400.0
    max_timeout_s: float = 86400.0
    drain_s: float = 60.0
    redis_url: str = field(default="", repr=False)  # It may hold a password.
    durability: str = "everysec"
    data_dir: Path = Path("var")
    max_queued: int = 100_000
    max_queued_bytes: int = 256 * 2**20
    body_limit: int = 10 * 2**20
    file_limit: int = 200 * 2**20
    file_retention_s: float = 30 * 86400.0
    worker_grace_s: float = 30.0
    retention_s: int = 86400
    sync_retention_s: int = 900
    batch_max_lines: int = 50_000
    max_lost_calls: int = 5
    max_attempts: int = 3
    batch_share: float = 0.7
    batch_min_share: float = 0.1
    max_batch_wait_s: float = 60.0
    interactive_reserve: float = 0.1
    on_lost_call: Mapping[str, str] = field(default_factory=_default_on_lost_call)
    allow_local_cloud: bool = False
    api_processes: int = 1
    log_level: str = "info"
    log_format: str = "json"
    models_refresh_s: float = 600.0
    prices: tuple[PriceConfig, ...] = ()
    keys: tuple[KeyConfig, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    providers: Mapping[str, ProviderConfig] = field(default_factory=_default_providers)
    models: Mapping[str, str] = field(default_factory=dict)
    weak_models: tuple[str, ...] = ()
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    source: Path | None = None

    def __post_init__(self) -> None:
        # Local Ollama's address has one place, ollama_url; its ProviderConfig only repeats it.
        ollama = replace(self.providers["ollama"], base_url=self.ollama_url)
        object.__setattr__(self, "providers", {**self.providers, "ollama": ollama})
        host, _ = host_and_port(self.bind)
        if not is_loopback(host) and not self.keys:
            where = self.source or "configuration"
            raise ConfigError(
                f'{where}: [chatd] bind = "{self.bind}" can be reached from other machines, and'
                " there are no [[chatd.keys]], so that anybody there could spend your providers'"
                " keys; make a key with `chatd keys new NAME`, or write"
                ' bind = "127.0.0.1:3220"'
            )

    @property
    def url(self) -> str:
        """Where this machine reaches the front end."""
        # Who listens on every address listens on this one.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def host(self) -> str:
        """The address that the front end listens on, an IPv6 one without its brackets."""
        return host_and_port(self.bind)[0]

    @property
    def port(self) -> int:
        """The port that the front end listens on."""
        return host_and_port(self.bind)[1]
