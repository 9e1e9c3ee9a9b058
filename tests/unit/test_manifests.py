"""The container manifests say what the configuration and the code say."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from typing import Any

import pytest
import yaml

from chat.config import REDIS_URL, load_config
from chat.jobs import queue_name
from chat.settings import ChatdConfig
from chat.types import Lane
from cli.redis_server import max_memory, prepare
from tests.manifests import CLOUDS, containers, documents, redis_scripts, services
from tests.pages import ROOT, page

USUAL = ChatdConfig()

#: The configurations that come with the manifests.
CONFIGURATIONS = {
    "compose": page("deploy/docker/lakehouse.toml"),
    "kubernetes": documents("ConfigMap")[0]["data"]["lakehouse.toml"],
}


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


@pytest.fixture(params=CONFIGURATIONS, name="read")
def read_(request, tmp_path):
    """One of these configurations, read with a few texts replaced."""

    def read(**replaced: str):
        text = CONFIGURATIONS[request.param]
        for old, new in {"0.0.0.0:3220": "127.0.0.1:3220", **replaced}.items():
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "lakehouse.toml"
        file.write_text(text, "utf-8")
        return load_config(file, {})

    return read


class TestConfiguration:
    """What the manifests have in place of lakehouse.toml."""

    def test_it_differs_from_the_defaults_in_what_it_says_only(self, read):
        """The port is that of the manifests, and data_dir the place of the volumes."""
        config = read()

        assert config.port == 3220
        assert str(config.data_dir) == "/var/lib/chatd"
        same = {"data_dir": USUAL.data_dir, "ollama_url": USUAL.ollama_url, "source": None}
        assert replace(config, **same) == USUAL

    def test_the_clouds_are_there_once_they_are_taken_in(self, read):
        """Front end and keeper have no keys to go by."""
        before = {name: provider.enabled for name, provider in read().providers.items()}
        after = read(**{"#enabled = true": "enabled = true"}).providers

        assert set(before.values()) == {None}
        assert {name for name, provider in after.items() if provider.enabled} == set(CLOUDS)

    @pytest.mark.parametrize("name", CONFIGURATIONS)
    def test_whoever_can_reach_it_needs_a_key(self, name):
        """A container's port is open to all who share its network: there are no keys, no start."""
        text = CONFIGURATIONS[name]

        assert 'bind = "0.0.0.0:3220"' in text
        assert re.search(r"^\s*#\[\[chatd\.keys\]\]$", text, re.MULTILINE)


class TestRedis:
    """The Redis of the manifests is set up as the one that `chatd up` starts."""

    @pytest.mark.parametrize("name", ["compose", "kubernetes"])
    def test_its_settings_are_those_of_chatds_own(self, name, tmp_path):
        """Durable, evicting nothing, with the memory that follows from the configuration."""
        prepare(replace(USUAL, data_dir=tmp_path)).lock.close()
        own = settings((tmp_path / "redis" / "redis.conf").read_text("utf-8"))
        script = redis_scripts()[name]
        begin, _, rest = script.partition("\n")
        told = settings(rest.removesuffix("EOF\n"))
        for elsewhere in ("bind", "port", "daemonize", "logfile"):
            own.pop(elsewhere)

        assert begin == "exec valkey-server - <<EOF"
        assert told.pop("dir") == "/data"
        assert told.pop("requirepass") == "$VALKEYCLI_AUTH"
        assert own.keys() - told.keys() == {"dir", "requirepass"}
        assert told.items() <= own.items()
        assert told["maxmemory"] == str(max_memory(USUAL))

    def test_nobody_sees_its_password(self):
        """It is in no manifest, and on no command line."""
        assert REDIS_URL == "CHATD_REDIS_URL"
        urls = [
            services()[name]["environment"][REDIS_URL] for name in services() if name != "redis"
        ]
        urls += [
            variable["value"]
            for name, _, container in containers()
            for variable in container["env"]
            if variable["name"] == REDIS_URL
        ]

        assert len(urls) == len(services()) - 1 + len(list(containers())) - 1
        for url in urls:
            assert re.fullmatch(r"redis://:\$[({]REDIS_PASSWORD[^}]*[)}]@redis:6379/0", url)


def settings(text: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in text.splitlines())


class TestCompose:
    """deploy/docker/compose.yaml."""

    def test_each_worker_has_the_key_of_its_provider_alone(self):
        """And a place of its own for answers that could not be handed in."""
        workers = {
            service["command"][1]: service
            for service in services().values()
            if service.get("command", [""])[0] == "worker"
        }

        assert set(workers) == set(USUAL.providers)
        for name, worker in workers.items():
            keys = [] if name == "ollama" else [f"${{CHATD_KEYS:-/etc/lakehouse}}/{name}.env"]
            assert worker.get("env_file", []) == keys
            assert worker["profiles"] == [name]
            assert worker["volumes"] == [f"{worker['hostname']}:/var/lib/chatd"]
            assert worker["environment"].keys() == {REDIS_URL}
        assert not [name for name in ("redis", "api", "keeper") if "env_file" in services()[name]]

    def test_all_have_the_time_that_they_need_to_stop(self):
        """A worker for its calls, the front end for its callers."""
        for name, service in services().items():
            given = seconds(service["stop_grace_period"])
            needed = {"api": USUAL.drain_s + 10, "redis": 0, "keeper": 0}
            assert given >= needed.get(name, USUAL.timeout_s + 30), name

    def test_front_end_and_keeper_share_their_files(self):
        """With nobody else."""
        shared = [
            name for name, each in services().items() if "data:/var/lib/chatd" in each["volumes"]
        ]

        assert sorted(shared) == ["api", "keeper"]

    def test_only_this_machine_reaches_it(self):
        """One port, on a loopback address; Redis is on a network without a way out."""
        ports = [port for service in services().values() for port in service.get("ports", [])]
        compose = yaml.safe_load(page("deploy/docker/compose.yaml"))

        assert ports == [f"127.0.0.1:{USUAL.port}:{USUAL.port}"]
        assert services()["redis"]["networks"] == ["inside"]
        assert compose["networks"]["inside"] == {"internal": True}

    def test_nobody_may_do_more_than_needed(self):
        """No container writes to its image, or gets rights back."""
        for service in services().values():
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]


class TestKubernetes:
    """deploy/kubernetes."""

    def test_each_worker_has_the_key_of_its_provider_alone(self):
        """By the variable that chatd looks into, from a Secret of its own."""
        workers = {
            container["args"][1]: keys_of(container)
            for name, _, container in containers()
            if name.startswith("worker-")
        }

        assert workers == {
            name: {USUAL.providers[name].key_env: name.replace("_", "-")} for name in CLOUDS
        }
        others = [c for name, _, c in containers() if not name.startswith("worker-")]
        assert not [container for container in others if keys_of(container)]

    def test_the_workers_differ_in_names_only(self):
        """What is mended in one has to be mended in all."""
        texts = set()
        for provider in CLOUDS:
            name = provider.replace("_", "-")
            text = page(f"deploy/kubernetes/worker-{name}.yaml")
            text = text.replace(USUAL.providers[provider].key_env, "KEY")
            texts.add(text.replace(provider, "NAME").replace(name, "NAME"))

        assert len(texts) == 1

    def test_all_have_the_time_that_they_need_to_stop(self):
        """A worker for its calls, the front end for its callers and what comes before."""
        for name, pod, container in containers():
            given = pod["terminationGracePeriodSeconds"]
            if name == "api":
                pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
                assert given >= pause + USUAL.drain_s + 10
            if name.startswith("worker-"):
                assert given == USUAL.timeout_s + 30

    def test_front_end_and_keeper_share_their_files_on_one_node(self):
        """With nobody else."""
        shared = {}
        for name, pod, _ in containers():
            claims = [volume.get("persistentVolumeClaim") for volume in pod.get("volumes", [])]
            if {"claimName": "data"} in claims:
                shared[name] = pod["affinity"]["podAffinity"]
        (rule,) = shared["api"]["requiredDuringSchedulingIgnoredDuringExecution"]
        labels = rule["labelSelector"]["matchLabels"]

        assert shared.keys() == {"api", "keeper"}
        assert shared["api"] == shared["keeper"]
        assert rule["topologyKey"] == "kubernetes.io/hostname"
        for owner in documents("Deployment"):
            has = labels.items() <= owner["spec"]["template"]["metadata"]["labels"].items()
            assert has == (owner["metadata"]["name"] in shared)

    def test_nobody_may_do_more_than_needed(self):
        """As the namespace's `restricted` standard asks, and nothing is written to an image."""
        (namespace,) = documents("Namespace")
        labels = namespace["metadata"]["labels"]

        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        for _, pod, container in containers():
            assert pod["automountServiceAccountToken"] is False
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }

    def test_what_is_named_is_there(self):
        """Labels, volumes, claims and Secrets; those that the reader makes stand in the README."""
        readme = page("deploy/kubernetes/README.md")
        owners = documents("Deployment") + documents("StatefulSet")
        pods = [owner["spec"]["template"]["metadata"]["labels"] for owner in owners]
        for owner in owners:
            chosen = owner["spec"]["selector"]["matchLabels"]
            assert chosen.items() <= owner["spec"]["template"]["metadata"]["labels"].items()
        for each in documents("Service") + documents("PodDisruptionBudget"):
            selector = each["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert [labels for labels in pods if selector.items() <= labels.items()]
        for scaled in documents("ScaledObject"):
            target = scaled["spec"]["scaleTargetRef"]["name"]
            assert [o for o in owners if o["metadata"]["name"] == target]
        for _, pod, container in containers():
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == volumes or container["name"] == "redis"
            for secret in secrets_of(container):
                assert f"secret generic {secret} " in readme or f"| `{secret}` |" in readme
        assert {each["metadata"].get("namespace", "chatd") for each in documents()} == {"chatd"}

    def test_keda_asks_for_the_queues_of_its_worker(self):
        """Those of both lanes; a worker is never scaled away altogether."""
        scaled = {
            each["spec"]["scaleTargetRef"]["name"]: each["spec"]
            for each in documents("ScaledObject")
        }

        assert set(scaled) == {f"worker-{name.replace('_', '-')}" for name in CLOUDS}
        for name in CLOUDS:
            spec = scaled[f"worker-{name.replace('_', '-')}"]
            asked = [trigger["metadata"]["listName"] for trigger in spec["triggers"]]
            assert asked == [f"queued:{queue_name(name, lane)}" for lane in Lane]
            assert spec["minReplicaCount"] == 1


def keys_of(container: dict[str, Any]) -> dict[str, str]:
    """The variables that are a provider's key, and the Secret that each is from."""
    return {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]["name"]
        for variable in container["env"]
        if variable["name"] not in {"REDIS_PASSWORD", "VALKEYCLI_AUTH", REDIS_URL}
    }


def secrets_of(container: dict[str, Any]) -> set[str]:
    return {v["valueFrom"]["secretKeyRef"]["name"] for v in container["env"] if "valueFrom" in v}


class TestImage:
    """deploy/docker/Dockerfile."""

    def test_it_is_made_of_what_is_packaged_and_nothing_else(self):
        """No key of a developer gets into a layer."""
        project = tomllib.loads(page("pyproject.toml"))
        included = project["tool"]["setuptools"]["packages"]["find"]["include"]
        packages = {name for name in included if not name.endswith(".*")}
        lines = [line for line in page(".dockerignore").splitlines() if not line.startswith("#")]

        assert lines[0] == "*"
        assert {line.removeprefix("!") for line in lines if line.startswith("!")} == packages | {
            "pyproject.toml",
            "README.md",
            "requirements-run.lock",
        }

    def test_its_libraries_are_those_of_the_tests(self):
        """In the same versions."""

        def pinned(path: str) -> set[str]:
            return set(re.findall(r"^[a-z0-9-]+==[^ ]+", page(path), re.MULTILINE))

        run = pinned("requirements-run.lock")

        assert len(run) > 30
        assert run <= pinned("requirements.lock")
        assert not [line for line in run if line.startswith(("pytest", "mypy", "ruff"))]

    def test_all_manifests_run_this_version_of_it(self):
        """As the user that the image has."""
        version = tomllib.loads(page("pyproject.toml"))["project"]["version"]
        images = {service["image"] for service in services().values()}
        images |= {container["image"] for _, _, container in containers()}
        users = {
            pod["securityContext"]["runAsUser"] for name, pod, _ in containers() if name != "redis"
        }

        assert images == {f"chatd:{version}", "valkey/valkey:9.1"}
        assert users == {10001}
        assert "USER 10001:10001" in page("deploy/docker/Dockerfile")
        assert (ROOT / ".dockerignore").exists()
