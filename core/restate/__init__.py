"""Deciding again what was decided: with other prices, rules or charges, or by what GPUs cost."""

from costspan.core.restate.capacity import CapacityChange, Hosted, restate_capacity
from costspan.core.restate.restate import book_named, restate
from costspan.core.restate.scope import Change, Hand, RestateError, Target

__all__ = [
    "CapacityChange",
    "Change",
    "Hand",
    "Hosted",
    "RestateError",
    "Target",
    "book_named",
    "restate",
    "restate_capacity",
]
