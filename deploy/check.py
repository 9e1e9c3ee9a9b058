"""``python -m deploy.check``: the container manifests against those who would read them.

No container engine and no cluster is needed: the Dockerfile goes through hadolint, the Compose file
through the schema of the Compose specification, Kubernetes' objects through its strict schemas, and
KEDA's through models of its own definitions. A check that passes everything looks like one that has
found nothing, so every manifest is then broken on purpose, in copies, and each has to be refused.

It runs in .venv-deploy, by ``make manifests``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
from cloudcoil.models.keda import v1alpha1 as keda
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ROOT = Path(__file__).parents[1]

#: The newest Kubernetes whose schemas kubernetes-validate has.
KUBERNETES = "1.37"

#: What KEDA's redis trigger reads; its definition takes any names here.
_REDIS_TRIGGER = {"address", "listName", "listLength", "databaseIndex", "enableTLS"}

#: For each kind of manifest: what breaks it, as text that is replaced in a copy.
_BREAKS: dict[str, tuple[tuple[str, str], ...]] = {
    "docker/Dockerfile": (
        ("FROM python:3.11-slim-trixie AS build", "FROM python AS build"),
        ('CMD ["api"]', "CMD api"),
        ("--no-cache-dir ", ""),
        ("USER 10001:10001", "USER root"),
        ("COPY requirements-run.lock ./", "COPY requirements-run.lock"),
    ),
    "docker/compose.yaml": (
        ("cap_drop: [ALL]", "cap_dropped: [ALL]"),
        ("stop_grace_period: 210s", "stop_grace_period: [210]"),
        ("condition: service_healthy", "condition: service_happy"),
        ("    internal: true", "    internal: 3"),
        ('    user: "999:999"', '    user: "999:999"\n    user: root'),
    ),
    "kubernetes/api.yaml": (
        ("readOnlyRootFilesystem: true", "readonlyRootFilesystem: true"),
        ("terminationGracePeriodSeconds: 80", 'terminationGracePeriodSeconds: "80"'),
        ("kind: Deployment", "kind: Deploiment"),
        ("apiVersion: apps/v1", "apiVersion: apps/v1beta1"),
        ("  replicas: 2", "  replicas: 2\n  replicas: 3"),
        ("      port: 3220", "      port: http"),
        ("  selector:\n    matchLabels:\n      app: api\n  template", "  template"),
    ),
    "kubernetes/worker-kimi.yaml": (
        ("maxUnavailable: 1", "maxUnavailabel: 1"),
        ("            - name: KIMI_API_KEY", "            - named: KIMI_API_KEY"),
    ),
    "kubernetes/network.yaml": (("        - port: 6379", "        - ports: 6379"),),
    "kubernetes/keda.yaml": (
        ("minReplicaCount: 1", "minReplicas: 1"),
        ("maxReplicaCount: 3", "maxReplicaCount: three"),
        ("listName:", "queueName:"),
        ('listLength: "20"', "listLength: 20"),
        ("kind: TriggerAuthentication", "kind: TriggerAuthorization"),
        ("    name: worker-kimi\n  # Never", "    nam: worker-kimi\n  # Never"),
        ("stabilizationWindowSeconds", "stabilisationWindowSeconds"),
    ),
}


def _dockerfile(text: str) -> str:
    """What hadolint says of a Dockerfile, style included; empty when it has no complaint."""
    run = subprocess.run(
        [_tool("hadolint"), "--no-color", "--failure-threshold", "style", "-"],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    return (run.stdout + run.stderr).strip() if run.returncode else ""


def _compose(text: str) -> str:
    """The same of a Compose file. Its anchors are resolved first: the schema knows none."""
    try:
        (content,) = _documents(text)
    except YAMLError as error:
        return str(error)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "compose.json"
        file.write_text(json.dumps(content), "utf-8")
        run = subprocess.run(
            [_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)],
            text=True,
            capture_output=True,
            check=False,
        )
    return (run.stdout + run.stderr).strip() if run.returncode else ""


def _kubernetes(text: str) -> str:
    """The same of a file of Kubernetes' and KEDA's objects."""
    try:
        documents = _documents(text)
    except YAMLError as error:
        return str(error)
    return "\n".join(filter(None, map(_object, documents)))


def _object(found: dict[str, Any]) -> str:
    name = f"{found.get('kind')} {found.get('metadata', {}).get('name')}"
    try:
        if found["apiVersion"].startswith("keda.sh/"):
            _kedas(found)
        else:
            kubernetes_validate.validate(found, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return f"{name}: {error.message}"
    except (ValidationError, ValueError) as error:
        return f"{name}: {error}"
    return ""


def _kedas(found: dict[str, Any]) -> None:
    """Raise ``ValueError`` for an object that KEDA does not know, or a field that it does not."""
    models = {model.__name__: model for model in (keda.ScaledObject, keda.TriggerAuthentication)}
    if found["kind"] not in models:
        raise ValueError(f"none of KEDA's kinds that are used here: {', '.join(models)}")
    # In the cluster's spelling only, and with nothing that would be dropped in silence.
    model = models[found["kind"]]
    model.model_validate(found, strict=True, extra="forbid", by_alias=True, by_name=False)
    for trigger in found["spec"].get("triggers", ()):
        given = trigger["metadata"].keys()
        if trigger["type"] != "redis" or "listName" not in given or not given <= _REDIS_TRIGGER:
            raise ValueError(f"the trigger {trigger['type']} with {', '.join(given)}")


def _documents(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML file; a key that stands twice is an error."""
    return list(YAML(typ="safe", pure=True).load_all(text))


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _check_of(path: Path) -> Callable[[str], str]:
    if path.name == "Dockerfile":
        return _dockerfile
    return _compose if path.name == "compose.yaml" else _kubernetes


def main() -> int:
    """Check everything; 1 when something is wrong, or a broken copy gets by."""
    folder = ROOT / "deploy"
    manifests = [folder / "docker/Dockerfile", folder / "docker/compose.yaml"]
    manifests += sorted((folder / "kubernetes").glob("*.yaml"))
    wrong = refused = 0
    for path in manifests:
        fault = _check_of(path)(path.read_text("utf-8"))
        wrong += bool(fault)
        print(f"{'wrong' if fault else 'ok':<7}{path.relative_to(ROOT)}")
        if fault:
            print(fault)
    for name, breaks in _BREAKS.items():
        path = folder / name
        text = path.read_text("utf-8")
        for right, broken in breaks:
            assert right in text, f"{name} has no {right!r} to break"
            if _check_of(path)(text.replace(right, broken, 1)):
                refused += 1
            else:
                wrong += 1
                print(f"wrong  {name} gets by with {broken!r} in place of {right!r}")
    print(f"{len(manifests)} manifests, {refused} broken copies refused, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
