"""Certificates for a test: authorities of its own, and who they vouch for."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Authority", "Certificate"]


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    file: Path
    key: Path


class Authority:
    """A CA that lives in ``folder``, made by the openssl command."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._own = self._made(name, f"/CN={name}", "basicConstraints=critical,CA:TRUE")

    @property
    def file(self) -> Path:
        """What to trust."""
        return self._own.file

    def signed(self, name: str, *alternatives: str) -> Certificate:
        """A certificate of this authority; ``alternatives`` are as ``DNS:localhost``."""
        names = ",".join(alternatives or (f"DNS:{name}",))
        issuer = ("-CA", str(self._own.file), "-CAkey", str(self._own.key))
        return self._made(
            f"{self._name}-{name}",
            f"/CN={name}",
            f"subjectAltName={names}",
            "basicConstraints=critical,CA:FALSE",
            more=issuer,
        )

    def _made(
        self, file: str, subject: str, *extensions: str, more: tuple[str, ...] = ()
    ) -> Certificate:
        made = Certificate(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        added = [word for extension in extensions for word in ("-addext", extension)]
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        out = ("-keyout", str(made.key), "-out", str(made.file))
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-days",
                "2",
                "-subj",
                subject,
                *curve,
                *out,
                *added,
                *more,
            ],
            check=True,
            capture_output=True,
        )
        return made
