"""Who speaks of an event, and how far each may."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from costspan.core.schema import Observation


class Reach(IntEnum):
    """How far an observation may speak about an event."""

    OWN = 0
    """The event's own instrument: everything."""
    FULL = 1
    """Evidence on a sole (or sole successful) attempt: all but attempt number and retry."""
    SHARED = 2
    """Evidence on one of several attempts: owner, cause and delivery only."""


class Spoken(NamedTuple):
    """One observation and how far it speaks here."""

    observation: Observation
    reach: Reach


class Identified(NamedTuple):
    """Event id -> what speaks of it; and the oids of what speaks of nothing.

    `unmatched`: its response id is carried by several events. `downstream`: a call to a gateway
    that is metered there, not matched yet. `refused`: (oid, event id) of an attachment that would
    give an event a second authenticated tenant.
    """

    events: dict[str, list[Spoken]]
    unmatched: list[str]
    downstream: list[str]
    refused: list[tuple[str, str]]
