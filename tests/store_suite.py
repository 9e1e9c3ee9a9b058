"""What the job store promises, on fakeredis (unit) and on a real server (system).

A module that wants the suite imports ``StoreSuite`` and has a fixture ``client``.
"""

from tests.store_audited import StoreAudited
from tests.store_base import a_job, balance
from tests.store_budget import StoreBudget
from tests.store_care import StoreCare
from tests.store_clients import StoreClients
from tests.store_closed import StoreClosed
from tests.store_drain import StoreDrain
from tests.store_life import StoreLife
from tests.store_listed import StoreListed
from tests.store_recall import StoreRecall
from tests.store_retry import StoreRetry
from tests.store_shown import StoreShown
from tests.store_streamed import StoreStreamed
from tests.store_waiting import StoreWaiting

__all__ = ["StoreSuite", "a_job", "balance"]


class StoreSuite(
    StoreLife,
    StoreCare,
    StoreListed,
    StoreBudget,
    StoreClosed,
    StoreWaiting,
    StoreRetry,
    StoreRecall,
    StoreShown,
    StoreAudited,
    StoreDrain,
    StoreClients,
    StoreStreamed,
):
    """Every test of it leaves the books balanced."""
