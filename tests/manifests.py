"""The container manifests, read for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.pages import ROOT, page

__all__ = ["CLOUDS", "containers", "documents", "redis_scripts", "services"]

#: The providers that have a worker in the manifests for Kubernetes.
CLOUDS = ("ollama_cloud", "openrouter", "opencode", "kimi")

_KUBERNETES = ROOT / "deploy" / "kubernetes"


def services() -> dict[str, Any]:
    """The services of the Compose file."""
    found: dict[str, Any] = yaml.safe_load(page("deploy/docker/compose.yaml"))["services"]
    return found


def documents(kind: str | None = None) -> list[dict[str, Any]]:
    """The objects for Kubernetes, those of one kind if it is given."""
    files = sorted(_KUBERNETES.glob("*.yaml"))
    every = [each for file in files for each in yaml.safe_load_all(file.read_text("utf-8"))]
    return [each for each in every if kind in {None, each["kind"]}]


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The containers for Kubernetes: whose they are, their pod, and the container."""
    for owner in documents("Deployment") + documents("StatefulSet"):
        pod = owner["spec"]["template"]["spec"]
        for container in pod["containers"]:
            yield owner["metadata"]["name"], pod, container


def redis_scripts() -> dict[str, str]:
    """What starts Redis in either manifest, as the shell is given it."""
    compose = services()["redis"]["command"]
    (kubernetes,) = [found["command"] for name, _, found in containers() if name == "redis"]
    assert compose[:2] == kubernetes[:2] == ["sh", "-c"]
    # Compose makes one dollar sign of two.
    return {"compose": compose[2].replace("$$", "$"), "kubernetes": kubernetes[2]}
