"""Bugs of the kind that this software could have had: each replaces a part of it by a wrong one.

For each the invariants by which the simulator may find it.
"""

from __future__ import annotations

from simulator.planted import settled, spooled  # each registers its own
from simulator.planted.bug import BUGS, Bug

__all__ = ["BUGS", "Bug", "settled", "spooled"]
