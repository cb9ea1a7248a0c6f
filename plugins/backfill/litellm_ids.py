"""By which names a row of LiteLLM's meets the call that it is of.

A row names the call id of LiteLLM (`litellm:ID`), as the live callback does: whichever comes
first, a call that both saw is one event. Old rows have no call id; their request id is the
provider's response id, by which they meet. A row mints no attempt: it could only double one.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from costspan.plugins.backfill import cells
from costspan.plugins.backfill.cells import Row

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BATCH_COST: Final = "_batch_cost"


def is_uuid(text: str) -> bool:
    """Whether the text is one of the ids that LiteLLM makes up."""
    return _UUID.fullmatch(text) is not None


def identity(
    row: Row, metadata: Row, named: str, kind: str | None, provider: str | None,
    *, is_hit: bool, by_row: bool,
) -> dict[str, Any]:  # fmt: skip
    """The operation and the response id that a row names."""
    own = {"operation_ids": (f"litellm-row:{cells.short(named)}",)}
    call = cells.text(row, "litellm_call_id") or cells.text(metadata, "litellm_call_id")
    if call is None and is_uuid(named):
        call = named  # embeddings, images, failures: the row is named by the call
    found: dict[str, Any] = {}
    # A cache hit repeats the fill's id; only a model's reply has one of the provider's own.
    if kind == "model" and not is_hit and provider is not None and named != call:
        base = cells.base_url(cells.text(row, "api_base"))
        found["response_id"] = f"{provider}/{base}/{_unwrapped(named)}"
    if by_row:
        return own
    if call is not None:
        found["operation_ids"] = (f"litellm:{call}",)
    elif "response_id" not in found:
        return own
    return found


def batch(named: str, call_type: str) -> dict[str, Any]:
    """A batch is one operation, however often it is polled; its creation used nothing."""
    return {
        "operation_ids": (f"batch:{named.removesuffix(_BATCH_COST)}",),
        "response_id": None,
        "cause": "batch",
        "cause_source": "structure",
        "initiator": "user",
        "tier": "batch",
        "phase": "start" if call_type == "create_batch" else "end",
    }


def _unwrapped(named: str) -> str:
    """The provider's id in LiteLLM's base64 of its routing, which it gives the Responses API.

    An encrypted one stays as it is: it meets by its call id alone.
    """
    prefix, _, wrapped = named.partition("_")
    if prefix != "resp":
        return named
    try:
        inside = base64.b64decode(wrapped, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return named
    return inside.rpartition("response_id:")[2] if inside.startswith("litellm:") else named
