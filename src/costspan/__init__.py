"""costspan: whose each LLM dollar is, to the pico-dollar and with the evidence.

Name the owner with `attribute` (or let an ASGI middleware do it), add the adapter of your host,
and read the books with `open_ledger` or the command `costspan`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from costspan.core.context import attribute, bind, carry, detached, work
from costspan.core.runtime import configure, flush, open_ledger, record
from costspan.install import install
from costspan.tool import tool

if TYPE_CHECKING:
    from costspan.carrier import Keys, from_carrier, resume, to_carrier
    from costspan.core.executor import ContextExecutor
    from costspan.core.journal.answer import Ack, Held, Refused
    from costspan.core.schema import Observation

__version__ = "0.1.0"
__all__ = [
    "Ack",
    "ContextExecutor",
    "Held",
    "Keys",
    "Observation",
    "Refused",
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


_RARELY_USED = {
    **dict.fromkeys(("Ack", "Held", "Refused"), "costspan.core.journal.answer"),
    "ContextExecutor": "costspan.core.executor",
    "Observation": "costspan.core.schema",
    **dict.fromkeys(("Keys", "from_carrier", "resume", "to_carrier"), "costspan.carrier"),
}
"""Name -> the module that has it, imported when somebody asks: the face stays quick to import."""


def __getattr__(name: str) -> Any:
    if name in _RARELY_USED:
        return getattr(import_module(_RARELY_USED[name]), name)
    raise AttributeError(f"module 'costspan' has no attribute {name!r}")
