"""A row of a source and where it stands; what a source is that has no rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from costspan.core.backfill.claim import LeftOut, Rejected


class Placed(NamedTuple):
    """A row, or why there is none, and where it stands."""

    where: str
    row: dict[str, Any] | Rejected | LeftOut


class UnreadableSource(ValueError):
    """A file or table that cannot be read as rows; the text says why, and what to do."""
