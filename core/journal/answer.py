"""What a caller is told of a record."""

from __future__ import annotations

import msgspec


class Ack(msgspec.Struct, frozen=True, gc=False):
    """Written: this observation survives the death of the process."""

    oid: str


class Held(msgspec.Struct, frozen=True, gc=False):
    """Kept in memory because no folder takes it now, written as soon as one does: why.

    Until then it is lost with the process.
    """

    reason: str


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Not kept, and counted: why."""

    reason: str
