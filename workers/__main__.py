"""``python -m workers worker PROVIDER`` and ``python -m workers keeper``."""

from __future__ import annotations

import sys

from gevent import monkey

if sys.argv[1:2] == ["worker"]:
    # Before anything imports sockets, locks or TLS: what is imported first keeps the blocking ones.
    # A worker waits for upstreams, and a thread of its own is too dear for that. The keeper reads
    # and writes files, during which a greenlet holds up all others: its threads stay what they are.
    monkey.patch_all()

from workers.processes import main

sys.exit(main(sys.argv[1:]))
