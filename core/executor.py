"""An executor that takes the submitter's context along; apart, because few programs need one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from costspan.core.context import carry

P = ParamSpec("P")
R = TypeVar("R")


class ContextExecutor(Executor):
    """An executor that takes the submitter's context into every task of the one it wraps."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit `fn` with the context of here."""
        return self._executor.submit(carry(fn), *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the wrapped executor down."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)
