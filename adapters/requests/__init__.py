"""`requests`: the signed context for our own services, and paid HTTP tools."""

from __future__ import annotations

from costspan.adapters.requests.tools import ToolPrice
from costspan.adapters.requests.transport import CostSession, attach

__all__ = ["CostSession", "ToolPrice", "attach"]
