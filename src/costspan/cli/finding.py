"""A finding of `doctor`: what every part of the examination yields."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import msgspec

Severity = Literal["error", "warning", "note"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something to know. `check` names the trap, `count` how many fell into it."""

    severity: Severity
    check: str
    count: int
    what: str
    do: str


def most(counts: Counter[Any]) -> str:
    """The most frequent names, each with its number."""
    said = ", ".join(f"{name} ({many:,})" for name, many in counts.most_common(4))
    return said + (", ..." if len(counts) > 4 else "")
