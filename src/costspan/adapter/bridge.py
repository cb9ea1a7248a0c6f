"""How an outer instrument tells an inner one what encloses it, in the same process.

LangChain's handler opens `langchain:RUN`; LiteLLM's callback, called underneath, finds it here and
names it on its attempts, so that both see one event. A tool or a retrieval encloses otherwise: it
is the parent of what starts inside, never the same event. The variable is a hint: a framework may
leave it set after its run ended, so a closed operation encloses nothing and the one around it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from costspan.core import context as core
from costspan.core.context import Context
from costspan.core.schema import Kind

CALLS: frozenset[Kind] = frozenset({"model", "embedding", "image", "audio", "rerank"})
"""The kinds of an operation that an inner instrument meters itself, as attempts."""


class OpenOperation:
    """An operation under way: its id, its context, and whether it is still open.

    `operation_ids` are more than one where a host starts several calls before it makes the first:
    an attempt inside may be any of them, and names all. `retry` is what the outer instrument knows
    of an operation that repeats another (`attempt`, `retry_of`, `retry_reason`): an attempt's own
    number is only its own instrument's to say, so the inner one takes it over.
    """

    __slots__ = (
        *("_outer", "_under", "context", "is_open", "kind"),
        *("operation_id", "operation_ids", "retry"),
    )

    def __init__(self, operation_id: str, context: Context, kind: Kind = "model") -> None:
        self.operation_id = operation_id
        self.operation_ids: tuple[str, ...] = (operation_id,)
        self.context = context
        self.kind = kind
        self.is_open = True
        self.retry: Mapping[str, Any] = {}
        self._outer: OpenOperation | None = None
        self._under: str | None = None  # the context's own parent where it was opened

    def surround(self) -> None:
        """Note what is around this operation: the hosts' own variables do not come back to it."""
        self._outer = _nearest()
        self._under = core.current().parent

    def is_nearer_than(self, context: Context) -> bool:
        """Whether nothing inside this operation has set a parent of its own in `context`."""
        return context.parent == self._under

    @property
    def outer(self) -> OpenOperation | None:
        """The nearest open operation around this one."""
        found = self._outer
        while found is not None and not found.is_open:
            found = found._outer
        return found


_enclosing: ContextVar[OpenOperation | None] = ContextVar("costspan_operation", default=None)


def _nearest() -> OpenOperation | None:
    found = _enclosing.get()
    return found if found is None or found.is_open else found.outer


def open_operation(operation: OpenOperation | None) -> None:
    """Show `operation` to what is called from here (or nothing, with None)."""
    if operation is not None:
        operation.surround()
    _enclosing.set(operation)


def enclosing_operation() -> OpenOperation | None:
    """The open call around this place, for an instrument of that very call to name."""
    found = _nearest()
    return found if found is not None and found.kind in CALLS else None


def enclosing_step() -> OpenOperation | None:
    """The open step (a tool, a retrieval) around this place: the parent of what starts here."""
    found = _nearest()
    while found is not None and found.kind in CALLS:
        found = found.outer
    return found


def current() -> Context:
    """The context in force here; its parent is the enclosing step where that is the nearest."""
    context = core.current()
    if _enclosing.get() is None:
        return context
    step = enclosing_step()
    if step is None or not step.is_nearer_than(context):
        return context
    return core.derive(context, parent=step.operation_id)
