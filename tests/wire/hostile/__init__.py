"""What an upstream can do to a call: some hundred ways, each with how the call may end."""

from __future__ import annotations

from tests.wire.hostile.case import Case
from tests.wire.hostile.errors import ERRORS
from tests.wire.hostile.framing import FRAMING
from tests.wire.hostile.heads import HEADS, REDIRECTS
from tests.wire.hostile.packed import PACKED
from tests.wire.hostile.sizes import SIZES
from tests.wire.hostile.texts import NUMBERS, TEXTS

__all__ = ["BELOW", "INSIDE", "REDIRECTS", "Case"]

#: What is wrong below any provider's protocol.
BELOW = (*SIZES, *FRAMING, *PACKED, *HEADS)

#: What is wrong inside it.
INSIDE = {"texts": TEXTS, "figures": NUMBERS, "errors": ERRORS}
