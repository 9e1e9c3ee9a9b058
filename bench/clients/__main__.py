"""What programs of others get from chatd: a transcript of each.

    python -m bench.clients install litellm|inspect
    python -m bench.clients run [--clients plain,openai,litellm,inspect] [--real]

``install`` makes an environment for a program that chatd does not depend on, below var/bench.
``run`` starts all of chatd before a scripted upstream, or with ``--real`` before the model of
`make demo`, and lets each program ask: chat, stream, tools, JSON mode, errors. Each line is a thing
that it asked and what it got; texts are held against the script, byte for byte. Those that are not
installed are left out, and told. The exit code is 1 when one did not get what it should.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.clients.environments import CLIENTS
from bench.streams.world import running
from deploy.demo.model import install_model_server, start_model_server
from tests.stack import Stack

__all__ = ["main"]

#: Models that lead to the scripted upstream by Ollama's wire and by OpenAI's.
_MODELS = ("echo", "openrouter/v/echo")


@contextmanager
def _real() -> Iterator[tuple[Stack, tuple[str, ...]]]:
    install_model_server()
    with tempfile.TemporaryDirectory(prefix="chatd-clients-") as folder:
        server, model = start_model_server(Path(folder) / "model.log")
        stack = Stack(Path(folder) / "chatd", {"ollama": model.url})
        try:
            yield stack.start(), (model.name,)
        finally:
            stack.stop()
            server.stop()


@contextmanager
def _scripted() -> Iterator[tuple[Stack, tuple[str, ...]]]:
    with running(("ollama", "openrouter")) as world:
        yield world.stack, _MODELS
        calls = [call for made in world.upstream.calls().values() for call in made]
        streamed = Counter(call.streamed for call in calls)
        print(f"upstream calls: {streamed[True]} streamed, {streamed[False]} whole")


def _run(clients: list[str], *, real: bool) -> int:
    failed = []
    with _real() if real else _scripted() as (stack, models):
        for name in clients:
            if CLIENTS[name].python(name) is None:
                print(f"{name}: not installed: python -m bench.clients install {name}")
                continue
            failed += [
                f"{name} ({model})"
                for model in models
                if CLIENTS[name].run(name, stack.url, model, "real" if real else "scripted")
            ]
        print(f"what the records say: {stack.balanced()}")
    print(f"not as it should be: {', '.join(failed)}" if failed else "all as it should be")
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    """Install a program, or let the installed ones ask; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    install = commands.add_parser("install")
    install.add_argument("client", choices=[n for n, client in CLIENTS.items() if client.packages])
    run = commands.add_parser("run")
    run.add_argument("--clients", default=",".join(CLIENTS), help="default: %(default)s")
    run.add_argument("--real", action="store_true", help="the model of make demo")
    options = parser.parse_args(arguments)
    if options.command == "install":
        CLIENTS[options.client].install(options.client)
        return 0
    # An orderly end also for SIGTERM: all processes are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    clients = options.clients.split(",")
    for name in clients:
        if name not in CLIENTS:
            parser.error(f"there is no client {name!r}; choose from {', '.join(CLIENTS)}")
    return _run(clients, real=options.real)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
