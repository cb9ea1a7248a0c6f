"""What a planted bug is: a part of this software replaced by a wrong one, and what it breaks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple


class Bug(NamedTuple):
    """A bug, and what it breaks."""

    name: str
    breaks: frozenset[int | str]
    plant: Callable[[], AbstractContextManager[None]]
    seed: int
    """Of the runs that find it soonest; others find it too."""


BUGS: list[Bug] = []


def bug(*breaks: int | str, seed: int = 1) -> Callable[[Callable[[], Generator[None]]], None]:
    """Register a bug."""

    def register(plant: Callable[[], Generator[None]]) -> None:
        name = plant.__name__
        BUGS.append(Bug(name, frozenset(breaks), contextmanager(plant), seed))

    return register


def nothing(*given: object) -> frozenset[Any]:
    """Nothing is found."""
    return frozenset()
