"""``python -m api``: the front end under gunicorn, configured by ``$LAKEHOUSE_CONFIG``."""

from __future__ import annotations

import os
import sys

from gevent import monkey

# Before anything imports sockets, locks or TLS: what is imported first keeps the blocking ones.
monkey.patch_all()

from api.server import FrontEndServer  # noqa: E402
from chat.config import load_config  # noqa: E402
from chat.errors import ConfigError  # noqa: E402
from chat.handover import check_address, listening_socket, who_waits  # noqa: E402
from chat.logs import configure  # noqa: E402


def main() -> int:
    """Serve until a signal ends it. 1 when the configuration cannot be used."""
    try:
        config = load_config()
        listen_fd = listening_socket(os.environ)
        if listen_fd is not None:
            check_address(listen_fd, config.bind)
    except ConfigError as error:
        sys.stderr.write(f"chatd api: {error}\n")
        return 1
    configure("api", config.log_level, config.log_format)
    FrontEndServer(config, listen_fd, who_waits(os.environ)).run()
    return 0


sys.exit(main())
