"""The run tree: which run started under which, kept only while they run.

The table is of the process, not of a handler: two handlers on one call see one run. Its size is
bounded, because a host may never end a run (a cancelled `ainvoke` reports nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

from costspan.adapter import Operation, current
from costspan.adapters.langchain.partial import Partial
from costspan.adapters.langchain.retry import Failures, Fingerprint
from costspan.core.context import NOTHING, Context
from costspan.core.counters import count

RUNS_MAX = 20_000
PREFIX = "langchain:"

RunKind = Literal["chain", "model", "tool", "retrieval"]


def operation_id_of(run_id: UUID | str) -> str:
    """What a run is called in the books."""
    return f"{PREFIX}{run_id}"


def run_id_of(operation_id: str) -> UUID | None:
    """The run that is called so; None if it is none of LangChain's."""
    return UUID(operation_id[len(PREFIX) :]) if operation_id.startswith(PREFIX) else None


def _text(run_id: UUID) -> str:
    """As `str(run_id)`, in half the time."""
    digits = run_id.bytes.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_NOTHING_SAID: Mapping[str, Any] = MappingProxyType({})


class Run:
    """One run under way. Chains have no `operation`: they make no event of their own.

    Its id is kept as text: the host's own object dies with the call, and that is watched.
    `asked_in` is the context of its start, before what its metadata adds.
    """

    operation: Operation | None = None
    facts: Mapping[str, Any] = _NOTHING_SAID
    params: Mapping[str, Any] = _NOTHING_SAID
    options: Mapping[str, Any] = _NOTHING_SAID
    fingerprint: Fingerprint = ()
    characters: int = 0
    partial: Partial | None = None
    inside: tuple[Run, ...] = ()
    usage: Mapping[str, int] | None = None
    is_over: bool = False
    failures: Failures | None = None
    answers: Failures | None = None
    handlers: int = 1
    unwatch: Callable[[], object] | None = None

    def __init__(
        self,
        run_id: str,
        kind: RunKind,
        parent: Run | None,
        parent_id: int | None,
        context: Context,
        metadata: Mapping[str, Any],
        tags: Sequence[str],
    ) -> None:
        self.run_id = run_id
        self.kind: RunKind = kind
        self.parent = parent
        self.parent_id = parent_id
        self.context = self.asked_in = context
        self.metadata = metadata
        self.tags = tags

    @property
    def has_reply(self) -> bool:
        """Whether a first token came: from then on nothing is unbilled."""
        return self.partial is not None

    @property
    def root(self) -> Run:
        """The outermost run around this one."""
        run = self
        while run.parent is not None:
            run = run.parent
        return run

    def ancestors(self) -> Iterator[Run]:
        """The runs around this one, nearest first."""
        run = self.parent
        while run is not None:
            yield run
            run = run.parent

    def recorded_ancestor(self) -> Run | None:
        """The nearest run around this one that is in the books."""
        run = self.parent
        while run is not None and run.operation is None:
            run = run.parent
        return run


class RunTable:
    """The runs under way, by their id.

    Without a lock, which a fork could leave held: each run is touched by its own thread alone, and
    single operations of a dict are atomic.
    """

    def __init__(self, runs_max: int = RUNS_MAX) -> None:
        self._runs: dict[int, Run] = {}
        self._runs_max = runs_max

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._runs.values()))

    def open(
        self,
        kind: RunKind,
        run_id: UUID,
        parent_id: UUID | None,
        metadata: Mapping[str, Any] | None,
        tags: Sequence[str] | None,
    ) -> Run | None:
        """A run that starts here; None if another handler of the same call has opened it."""
        known = self._runs.get(run_id.int)
        if known is not None:
            known.handlers += 1
            return None
        under = None if parent_id is None else parent_id.int
        parent = _fallback_parent(under) or self._parent(under)
        context = current()
        if context is NOTHING and parent is not None:
            context = parent.context  # a thread that lost its context; the tree still knows
        run = Run(_text(run_id), kind, parent, under, context, metadata or {}, tags or ())
        self._runs[run_id.int] = run
        if len(self._runs) > self._runs_max:
            self._evict()
        return run

    def find(self, run_id: UUID) -> Run | None:
        """The run of this id, if it is under way."""
        return self._runs.get(run_id.int)

    def close(self, run_id: UUID) -> Run | None:
        """The run that ends here; gone from the table once each of its handlers has said so."""
        run = self._runs.get(run_id.int)
        if run is None:
            return None
        run.handlers -= 1
        if run.handlers <= 0:
            self._runs.pop(run_id.int, None)
        return run

    def drop(self, run: Run) -> None:
        """Forget a run that its host gave up."""
        self._runs.pop(UUID(run.run_id).int, None)

    def _evict(self) -> None:
        """Forget the oldest run: most likely one that never ends."""
        with suppress(RuntimeError, StopIteration):  # another thread was at it: the next one evicts
            if self._runs.pop(next(iter(self._runs)), None) is not None:
                count("langchain_run_evicted")

    def _parent(self, parent_id: int | None) -> Run | None:
        return None if parent_id is None else self._runs.get(parent_id)


# `RunnableWithFallbacks.invoke` starts its alternatives beside itself, not below: they have the
# parent that it has. This says which one is at work here; one that is over says nothing.
_fallbacks: ContextVar[Run | None] = ContextVar("costspan_langchain_fallbacks", default=None)


def enter_fallbacks(run: Run) -> None:
    """What starts here beside `run` is one of its alternatives."""
    _fallbacks.set(run)


def _fallback_parent(parent_id: int | None) -> Run | None:
    run = _fallbacks.get()
    if run is None or run.is_over or run.parent_id != parent_id:
        return None
    return run
