"""Calls to a base URL that is metered there: the client's view of one makes no event of its own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from costspan.core.schema import Observation

DOWNSTREAM = "downstream"
"""The flag of a client's observation of a call that a gateway meters."""


def is_downstream(seen: Observation, gateways: Sequence[str]) -> bool:
    """Whether this is the client's view of a call to a base URL that is metered there.

    It is marked so when it is recorded, by the settings of the process that made the call, so that
    the journal alone decides; `gateways` says it of observations from elsewhere.
    """
    if DOWNSTREAM in seen.flags:
        return True
    if not gateways or not seen.attributes:
        return False
    return is_metered(seen.attributes.get("base_url"), gateways)


def marked(seen: Observation, gateways: Sequence[str]) -> Observation:
    """The observation, with the mark of a gateway's client if it is one's."""
    if not gateways or DOWNSTREAM in seen.flags or not is_downstream(seen, gateways):
        return seen
    return msgspec.structs.replace(seen, flags=(*seen.flags, DOWNSTREAM))


def is_metered(base_url: object, gateways: Sequence[str]) -> bool:
    """Whether a base URL is one of these gateways, or below one."""
    return isinstance(base_url, str) and any(
        (base_url.rstrip("/") + "/").startswith(gateway.rstrip("/") + "/") for gateway in gateways
    )
