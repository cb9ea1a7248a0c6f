"""What may go wrong at a call, and a process that is dead of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Literal, NamedTuple

from simulator.disk import failure

Disaster = Literal["error", "short", "slow", "kill", "kill_after", "power", "meanwhile"]


class Killed(BaseException):
    """This process is dead: nothing it does has any effect any more."""


class Fault(NamedTuple):
    """What happens at the `at`th call from now (0: the next), once.

    `error` is raised where something fails; `seed` decides what the disk keeps of what was not
    synced; `meanwhile` is what another process does between that call and the one before it.
    """

    what: Disaster
    at: int
    error: OSError = failure(errno.EIO)
    seed: int = 0
    meanwhile: Callable[[], object] | None = None
