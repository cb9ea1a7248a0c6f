"""A player's coroutines in a thread: they call blocking methods there, and never suspend."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, in this thread.

    Raises:
        RuntimeError: if it does suspend: a driver's blocking method was not blocking.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("a step suspended in sync mode")


def driven(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run what a body makes."""
    drive(body())


def blocking(run: Callable[[str], Coroutine[Any, Any, str]]) -> Callable[[str], str]:
    """A tool that runs in the thread of who calls it."""
    return lambda q: drive(run(q))
