"""The ``chatd`` command: its help, its exit codes, and one line instead of a traceback."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from cli.main import main

KEY = "sk-kimi-0123456789abcdef"
VARIABLES = ("OLLAMA_CLOUD_KEY", "OPENROUTER_API_KEY", "OPENCODE_API_KEY", "KIMI_API_KEY")
COMMANDS = (
    "api",
    "ask",
    "audit",
    "batch",
    "check",
    "drain",
    "eval",
    "gateway",
    "keeper",
    "keys",
    "providers",
    "restart",
    "resume",
    "top",
    "up",
    "worker",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No keys and no files of the machine that runs this; whatever a command sets is taken back."""
    monkeypatch.setenv("LAKEHOUSE_CONFIG", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path):
    """Writes a configuration without key files; more lines of [chatd] come on top."""
    no_files = "".join(
        f'[chatd.providers.{name}]\nkey_file = ""\n'
        for name in ("ollama_cloud", "openrouter", "opencode", "kimi")
    )

    def config(lines=""):
        file = tmp_path / "chatd.toml"
        file.write_text(f'[chatd]\ndata_dir = "{tmp_path}/data"\n{lines}\n{no_files}', "utf-8")
        return str(file)

    return config


def chatd(*arguments):
    return CliRunner().invoke(main, arguments)


class TestHelp:
    """What ``chatd`` offers."""

    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_every_command_is_listed_with_what_it_does(self, option):
        """In one screen."""
        run = chatd(option)
        listed = run.output.partition("Commands:")[2].splitlines()[1:]

        assert run.exit_code == 0
        assert tuple(line.split()[0] for line in listed) == COMMANDS
        assert all(len(line.split()) > 3 for line in listed)
        assert "--config FILE" in run.output

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_its_own(self, command):
        """It is shown without a configuration being read."""
        run = chatd(command, "--help")

        assert run.exit_code == 0
        assert run.output.startswith(f"Usage: main {command} [OPTIONS]")

    def test_the_version_is_that_of_the_package(self):
        """For a bug report."""
        run = chatd("--version")

        assert run.exit_code == 0
        assert run.output.strip().endswith("0.1.0")

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            (["serve"], "No such command 'serve'"),
            (["worker"], "Missing argument 'PROVIDER'"),
            (["worker", "kimi", "--instance", "0"], "0 is not in the range x>=1"),
            (["worker", "kimi-x"], '"kimi-x" has to be a provider, or a provider and a number'),
            (["worker", "kimi-"], "write kimi, kimi-1 or kimi --instance 1"),
            (["worker", "kimi-01"], "a number from 1 on"),
            (["worker", "kimi-1", "--instance", "1"], "and no --instance"),
            (["ask", "Hello?"], "Missing option '-m' / '--model'"),
            (["--config", "/nonexistent.toml", "check"], "'/nonexistent.toml' does not exist"),
        ],
        ids=[
            "command",
            "argument",
            "instance",
            "name",
            "no-number",
            "zero",
            "twice",
            "model",
            "file",
        ],
    )
    def test_a_wrong_command_line_is_2(self, arguments, fault):
        """As every shell expects."""
        run = chatd(*arguments)

        assert run.exit_code == 2
        assert fault in run.output


class TestWorker:
    """``chatd worker``, whose process is in `workers`."""

    @pytest.mark.parametrize(
        ("arguments", "becomes"),
        [
            (["kimi"], ["kimi"]),
            (["kimi", "--instance", "2"], ["kimi", "--instance", "2"]),
            (["ollama_cloud-12"], ["ollama_cloud", "--instance", "12"]),
        ],
        ids=["provider", "instance", "unit"],
    )
    def test_a_name_may_have_a_number(self, monkeypatch, arguments, becomes):
        """systemd gives an instance of a unit one name, and cannot take it apart."""
        ran = []
        monkeypatch.setattr("runpy.run_module", lambda *_, **__: ran.extend(sys.argv))
        monkeypatch.setattr("sys.argv", [])
        run = chatd("worker", *arguments)

        assert run.exit_code == 0
        assert ran == ["chatd workers", "worker", *becomes]


class TestConfiguration:
    """A file that cannot be used."""

    @pytest.mark.parametrize(
        "command", [["check"], ["providers"], ["up"], ["ask", "-m", "x", "Hello?"]], ids=" ".join
    )
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("[chatd", "is not TOML"),
            ("[chatd]\ntimeout = 5\n", "timeout_s"),
            ('[chatd]\nbind = "0.0.0.0:80"\n', "can be reached from other machines"),
            (f'[chatd.providers.kimi]\nkey = "{KEY}"\n', "do not belong in this file"),
        ],
        ids=["not TOML", "unknown key", "open to all", "a key"],
    )
    def test_it_is_told_in_one_line(self, tmp_path, command, text, fault):
        """With the file, the rule and the way out, and never a key; the exit code is 1."""
        file = tmp_path / "bad.toml"
        file.write_text(text, "utf-8")
        run = chatd("--config", str(file), *command)

        assert run.exit_code == 1
        assert run.output.startswith(f"Error: {file}: ")
        assert fault in run.output
        assert len(run.output.splitlines()) == 1
        assert KEY not in run.output

    def test_a_named_file_that_is_missing_is_told_as_well(self, monkeypatch):
        """By the variable this time."""
        monkeypatch.setenv("LAKEHOUSE_CONFIG", "/nonexistent/chatd.toml")
        run = chatd("providers")

        assert run.exit_code == 1
        assert "/nonexistent/chatd.toml: there is no such file" in run.output


class TestProviders:
    """``chatd providers``."""

    def test_all_five_are_listed(self, config, monkeypatch):
        """With what registers each or what it lacks; no key is shown."""
        monkeypatch.setenv("KIMI_API_KEY", KEY)
        run = chatd("--config", config(), "providers")
        lines = run.output.splitlines()

        assert run.exit_code == 0
        assert [line.split()[0] for line in lines] == [
            "ollama",
            "ollama_cloud",
            "openrouter",
            "opencode",
            "kimi",
        ]
        assert [" not registered" in line for line in lines] == [False, True, True, True, False]
        assert KEY not in run.output


class TestCheck:
    """``chatd check``."""

    def test_a_machine_that_has_nothing_but_ollama_is_fit(self, config):
        """`chatd up` would bring the Redis that is not there yet."""
        run = chatd("--config", config(), "check")

        assert run.exit_code == 0
        assert "note  redis" in run.output
        assert not [line for line in run.output.splitlines() if line.startswith("wrong")]

    def test_a_redis_that_does_not_answer_is_1(self, config, tmp_path):
        """It was configured, so it has to be there."""
        url = f"unix://{tmp_path}/no-redis.sock"
        run = chatd("--config", config(f'redis_url = "{url}"'), "check")

        assert run.exit_code == 1
        assert run.output.splitlines()[-1].startswith("wrong redis")

    def test_no_provider_is_1(self, config):
        """Nobody could be asked."""
        run = chatd("--config", config('ollama_url = ""'), "check")

        assert run.exit_code == 1
        assert "wrong providers" in run.output

    def test_a_password_is_not_shown(self, config, tmp_path):
        """That of Redis stands in its URL."""
        url = f"unix://:secret-password@{tmp_path}/no-redis.sock"
        run = chatd("--config", config(f'redis_url = "{url}"'), "check")

        assert run.exit_code == 1
        assert "secret-password" not in run.output


def test_ctrl_c_is_no_verdict(monkeypatch):
    """Wherever it comes: 1 would be one, as of `chatd audit`."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.main.load_config", interrupted)
    result = CliRunner().invoke(main, ["check"])

    assert result.exit_code == 130
    assert "Interrupted" in result.output
