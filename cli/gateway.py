"""``chatd gateway``: what nginx needs to stand in front of chatd, made from ``[gateway]``."""

from __future__ import annotations

import ipaddress
import math
import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import click

from chat.addresses import host_and_port, is_loopback
from chat.config import ChatdConfig, load_config
from chat.errors import ConfigError
from chat.formats.strict_json import shown

__all__ = ["gateway", "nginx_config"]

#: Bytes beyond chatd's limits that nginx lets by: the form around a file, and some that are too
#: many, which chatd then refuses.
_MARGIN = 2**20
#: Seconds beyond the longest wait, in which chatd itself answers that it is over.
_GRACE_S = 60

# What has a meaning for nginx (blanks, quotes, ";", "{", "$", "#") is in neither of these.
_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_PATH = re.compile(r"/[A-Za-z0-9._/@+-]+")


@click.command()
@click.option(
    "--certificate",
    metavar="PATH",
    help="TLS certificate with its chain, as a path on nginx' host; without it, plain HTTP.",
)
@click.option("--certificate-key", metavar="PATH", help="Its private key.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write (default: standard output).",
)
def gateway(certificate: str | None, certificate_key: str | None, output: Path | None) -> None:
    """Print an nginx configuration for [gateway] of the configuration.

    It belongs into nginx' http block, as /etc/nginx/conf.d/chatd.conf. Test it with `nginx -t`.
    """
    from cli.files import whole

    if (certificate is None) != (certificate_key is None):
        raise click.UsageError("--certificate and --certificate-key go together; give both")
    config = load_config()
    tls = None if certificate is None or certificate_key is None else (certificate, certificate_key)
    text = nginx_config(config, tls=tls)
    host, _ = host_and_port(config.gateway.bind)
    if not is_loopback(host):
        faults = [] if config.keys else ["chatd asks nobody for a key: `chatd keys new NAME`"]
        faults += [] if tls else ["keys and prompts go over plain HTTP: --certificate"]
        if faults:
            click.echo(
                f"note: other machines can reach {config.gateway.bind}, and {'; '.join(faults)}",
                err=True,
            )
    try:
        with whole(output) as out:
            out.write(text.encode())
    except OSError as error:
        if output is None:
            raise
        raise click.ClickException(
            f"{output}: cannot be written ({error.strerror}); choose another file"
        ) from error


def nginx_config(config: ChatdConfig, *, tls: tuple[str, str] | None = None) -> str:
    """The text of nginx' configuration; ``tls`` has the paths of a certificate and its key.

    Raises ``ConfigError`` for what nginx could not use, or could read as something else.
    """
    listen, upstream = _listen(config), _upstream(config)
    if _same(config.gateway.bind, config.gateway.chatd_url):
        raise _fault(config, "bind", config.gateway.bind, "is chatd's own address", "another port")
    values = {
        "chatd": upstream,
        "listen": f"{listen} ssl" if tls else listen,
        "tls": "" if tls is None else _tls(*tls),
        "body_limit": str(config.body_limit),
        "file_limit": str(config.file_limit),
        "largest_body": str(config.body_limit + _MARGIN),
        "largest_file": str(config.file_limit + _MARGIN),
        "longest_wait_s": str(math.ceil(config.max_timeout_s) + _GRACE_S),
    }
    template = files("cli").joinpath("gateway.conf").read_text("utf-8")
    return re.sub(r"@([a-z_]+)@", lambda found: values[found[1]], template)


def _listen(config: ChatdConfig) -> str:
    bind = config.gateway.bind
    host, port = host_and_port(bind)
    if not _is_host(host):
        raise _fault(
            config, "bind", bind, "has no address or host name", 'host:port, as "127.0.0.1:3110"'
        )
    return _address(host, port)


def _upstream(config: ChatdConfig) -> str:
    url = config.gateway.chatd_url
    parts = urlsplit(url)
    host = parts.hostname or ""
    if url != f"http://{parts.netloc}" or "@" in url:
        raise _fault(
            config,
            "chatd_url",
            url,
            "is not http:// with a host and no path, which is how chatd is reached",
            '"http://127.0.0.1:3220"',
        )
    if not _is_host(host):
        raise _fault(
            config,
            "chatd_url",
            url,
            "has no address or host name",
            'a URL such as "http://127.0.0.1:3220"',
        )
    return _address(host, parts.port or 80)


def _tls(certificate: str, key: str) -> str:
    for path in (certificate, key):
        if _PATH.fullmatch(path) is None:
            raise ConfigError(
                f"{shown(path)} is not a path from the root, of letters, digits and ./_-@+; "
                "nginx could read it as something else: give the file another name"
            )
    lines = (
        f"ssl_certificate {certificate};",
        f"ssl_certificate_key {key};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
    )
    return "".join(f"\n    {line}" for line in lines)


def _same(bind: str, url: str) -> bool:
    """Whether nginx would call itself: one port, and hosts that mean the same address."""
    host, port = host_and_port(bind)
    parts = urlsplit(url)
    other = parts.hostname or ""
    if port != (parts.port or 80):
        return False
    every = host in ("0.0.0.0", "::")  # noqa: S104 - it is compared, not bound
    named = is_loopback(host) and "localhost" in (host.lower(), other)
    return host.lower() == other or (is_loopback(other) and (every or named))


def _is_host(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _NAME.fullmatch(host) is not None
    # An IPv6 address may end in a zone of any characters.
    return getattr(address, "scope_id", None) is None


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fault(config: ChatdConfig, key: str, value: str, fault: str, remedy: str) -> ConfigError:
    where = config.source or "configuration"
    return ConfigError(f"{where}: [gateway] {key} = {shown(value)} {fault}; write {remedy}")
