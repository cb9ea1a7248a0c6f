"""costspan: whose each LLM dollar is, to the pico-dollar and with the evidence.

Name the owner with `attribute` (or let an ASGI middleware do it), add the adapter of your host,
and read the books with `open_ledger` or the command `costspan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan.core.context import (
    ContextExecutor,
    attribute,
    bind,
    carry,
    detached,
    work,
)
from costspan.core.runtime import configure, flush, open_ledger, record
from costspan.install import install
from costspan.tool import tool

if TYPE_CHECKING:
    from costspan.carrier import Keys, from_carrier, resume, to_carrier
    from costspan.core.schema import Observation

__version__ = "0.1.0"
__all__ = [
    "ContextExecutor",
    "Keys",
    "Observation",
    "__version__",
    "attribute",
    "bind",
    "carry",
    "configure",
    "detached",
    "flush",
    "from_carrier",
    "install",
    "open_ledger",
    "record",
    "resume",
    "to_carrier",
    "tool",
    "work",
]


def __getattr__(name: str) -> Any:
    if name == "Observation":
        from costspan.core.schema import Observation

        return Observation
    if name in ("Keys", "from_carrier", "resume", "to_carrier"):
        from costspan import carrier

        return getattr(carrier, name)
    raise AttributeError(f"module 'costspan' has no attribute {name!r}")
