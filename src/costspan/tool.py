"""`costspan.tool(name, cost=)`: a paid tool, as a context manager or a decorator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

from costspan.adapter import Attempt
from costspan.core.context import current, derive, scope

F = TypeVar("F", bound=Callable[..., Any])


class tool:
    """A tool run: one event with a flat cost, the parent of every call made inside.

    As a context manager, or as a decorator of a function or coroutine function:

        with costspan.tool("search", cost="0.01"):
            hits = search(query)

        @costspan.tool("search", cost="0.01")
        async def search(query): ...

    Args:
        name: The tool's name.
        cost: What one run costs, in USD: a decimal string, an int or a Decimal. None if it is free
            or unknown here. A float is taken by its shortest text.
    """

    def __init__(self, name: str, cost: str | int | Decimal | float | None = None) -> None:
        self._name = name
        self._cost = cost
        # One tool object may be entered by many tasks at once: each exit finds its own entry.
        self._running: dict[str | None, tuple[Attempt, scope]] = {}

    def __enter__(self) -> Attempt:
        attempt = Attempt.start(
            layer="manual",
            kind="tool",
            name=self._name,
            cause="tool",
            cause_source="structure",
            initiator="agent",
            flat_cost=self._cost,
        )
        inside = scope(derive(current(), parent=attempt.attempt_id))
        inside.__enter__()
        self._running[attempt.attempt_id] = (attempt, inside)
        return attempt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._running:
            return  # left without having been entered
        mine = current().parent
        attempt, inside = (
            self._running.pop(mine) if mine in self._running else self._running.popitem()[1]
        )
        inside.__exit__(kind, error, trace)
        if error is None:
            attempt.end()
        else:
            attempt.fail(error)

    def __call__(self, function: F) -> F:
        """Make every call of `function` a run of this tool.

        Raises:
            TypeError: for a generator function, whose body runs after its call returned: use the
                context manager inside it, around work that does not yield.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            name = getattr(function, "__qualname__", function)
            raise TypeError(
                f"costspan.tool cannot decorate the generator {name}: its body runs after the call"
                " returned; write `with costspan.tool(...)` inside it instead"
            )
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with tool(self._name, self._cost):
                    return await function(*args, **kwargs)

            return run_async  # type: ignore[return-value]  # wraps keeps F's signature

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with tool(self._name, self._cost):
                return function(*args, **kwargs)

        return run  # type: ignore[return-value]  # wraps keeps F's signature
