"""nginx as a test's own process, with a folder and ports of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from chat.config import ChatdConfig, GatewayConfig
from cli.gateway import nginx_config
from cli.redis_server import free_port
from tests.servers import Child
from tests.waiting import eventually

__all__ = ["Nginx", "binary"]

#: nginx' own limits, cut short: what the gateway's configuration leaves at its default fails soon.
_SHORT = "proxy_read_timeout 1s; proxy_send_timeout 1s;"
#: `control` is a server without anything that `chatd gateway` writes.
_CONF = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {timeouts}
    include {folder}/chatd.conf;
    server {{
        listen 127.0.0.1:{control};
        location / {{
            proxy_pass {chatd};
            client_max_body_size 100m;
        }}
    }}
}}
"""


class Nginx:
    """A gateway in front of the chatd at ``chatd_url``, as `chatd gateway` writes it.

    ``url`` is the gateway's, ``control`` that of a plain proxy beside it. nginx' own timeouts are a
    second, so that a test need not wait for them, unless it is ``patient``.
    """

    def __init__(
        self,
        folder: Path,
        chatd_url: str,
        config: ChatdConfig,
        *,
        tls: tuple[str, str] | None = None,
        patient: bool = False,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.port, control = free_port(), free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.control = f"http://127.0.0.1:{control}"
        bind = f"127.0.0.1:{self.port}"
        gateway = GatewayConfig(bind=bind, chatd_url=chatd_url)
        text = nginx_config(replace(config, gateway=gateway), tls=tls)
        (folder / "chatd.conf").write_text(text, "utf-8")
        self.file = folder / "nginx.conf"
        # Started by root it would work as nobody, to whom the folders of tests are closed.
        user = "user root;" if os.geteuid() == 0 else ""
        values = {"folder": folder, "control": control, "chatd": chatd_url, "user": user}
        timeouts = "" if patient else _SHORT
        self.file.write_text(_CONF.format(**values, timeouts=timeouts), "utf-8")
        self._binary = _found()
        self.child = Child(self._command(), folder / "nginx.log")

    def __enter__(self) -> Self:
        self.child.start()
        eventually(self._listens, what="nginx listens")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.child.stop()

    def tested(self) -> subprocess.CompletedProcess[str]:
        """What `nginx -T` says: faults, and the configuration in force."""
        command = self._command("-T")
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def on_disk(self) -> list[int]:
        """The bytes of each body and answer that nginx has written to its disk and still needs.

        Their files have no name: nginx removes it as soon as it has opened them.
        """
        master = Path(f"/proc/{self.child.pid}")
        workers = (master / "task" / master.name / "children").read_text("ascii").split()
        places = (f"{self.folder}/body/", f"{self.folder}/proxy/")
        found = []
        for descriptor in (path for pid in workers for path in Path(f"/proc/{pid}/fd").iterdir()):
            # A connection may end between two looks.
            with suppress(FileNotFoundError):
                if str(descriptor.readlink()).startswith(places):
                    found.append(descriptor.stat().st_size)
        return found

    def _command(self, *options: str) -> list[str]:
        return [
            self._binary,
            *options,
            *("-e", "stderr"),
            *("-p", str(self.folder)),
            *("-c", str(self.file)),
        ]

    def _listens(self) -> bool:
        assert self.child.alive, self.child.output()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True


def binary() -> str | None:
    """The program, which Debian keeps out of the PATH of users; None where there is none."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _found() -> str:
    found = binary()
    if found is None:
        # Where tests have to be complete, its absence is a fault of the place.
        assert "CHATD_CI" not in os.environ, "CI needs nginx"
        pytest.skip("there is no nginx")
    return found
