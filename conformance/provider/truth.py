"""The truth ledger: what the provider really did with every request, and what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from threading import Condition
from typing import Any, Final, Literal, cast

Delivery = Literal["complete", "disconnected", "aborted"]
Total = Literal["tenant", "purpose", "project", "case", "user", "model", "requested_model"]

_BARRIER_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Row:
    """One HTTP request to a model endpoint.

    Attributes:
        seq: Order of arrival, from 1.
        received_ns: Arrival, Unix time in ns UTC; ``finished_ns`` when the last byte went out.
        endpoint: The path.
        requested_model: As the request says; None where the body was garbage.
        executed_model: The name in the reply, which the invoice bills; None without a reply.
        tier: The tier that served it.
        tenant: Hint of the directive, else the request's ``user`` field; truth for tests only.
        purpose: Hint of the directive; so is ``case``, a free marker.
        project: Directive, else the ``OpenAI-Project`` header; what invoices group by.
        api_key_id: Digest of the bearer key, or of Anthropic's ``x-api-key``.
        user: The request's ``user`` field; Anthropic's is ``metadata.user_id``.
        status: HTTP status; None when the connection was closed before the first byte.
        billed: Whether it is on the invoice.
        usage: Billed tokens, and web searches, as disjoint components, zeros left out; empty when
            unbilled.
        reasoning: How many of the output tokens were reasoning.
        component_pico: Cost per component in pico-USD; sums to ``cost_pico``.
        cost_pico: Exact cost in pico-USD.
        reported: Whether the client was told the usage.
        response_id: The id in the reply.
        retry_count: The ``x-stainless-retry-count`` header.
        stream: Whether a stream was asked for.
        delivery: ``complete`` all bytes were handed over; ``disconnected`` the client left
            before; ``aborted`` the provider closed by script.
        batch_id: The batch of which the row is a line; such a row is no HTTP request of its own
            but arrives, and is billed, when its batch completes.
    """

    seq: int
    received_ns: int
    finished_ns: int
    endpoint: str
    requested_model: str | None
    executed_model: str | None
    tier: str | None
    tenant: str | None
    purpose: str | None
    case: str | None
    project: str | None
    api_key_id: str | None
    user: str | None
    status: int | None
    billed: bool
    usage: Mapping[str, int]
    reasoning: int
    component_pico: Mapping[str, int]
    cost_pico: int
    reported: bool
    response_id: str | None
    retry_count: int | None
    stream: bool
    delivery: Delivery
    batch_id: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values, integers exact."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: dict(cast(Mapping[str, int], value)) if isinstance(value, Mapping) else value
            for name, value in values.items()
        }


class TruthLedger:
    """Append-only rows, safe to use from many threads.

    A client may look as soon as it has all content, before the thread that sent it has written
    the row. So a request is marked as ending when only its closing frames are left, and readers
    wait for those.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._rows: dict[int, Row] = {}
        self._open: set[int] = set()
        self._ending: set[int] = set()
        self._cases: set[str] = set()
        self._last = 0

    def open(self) -> int:
        """Note a request's arrival; returns its sequence number."""
        with self._changed:
            self._last += 1
            self._open.add(self._last)
            self._changed.notify_all()
            return self._last

    def understood(self, case: str | None) -> None:
        """A request of this ``case`` has been read, and is about to be answered."""
        if case is not None:
            with self._changed:
                self._cases.add(case)
                self._changed.notify_all()

    def ending(self, seq: int) -> None:
        """What a client waits for is out; only the end of this reply is left."""
        with self._changed:
            self._ending.add(seq)

    def append(self, row: Row) -> None:
        """Write a request's row, once, and wake those who wait."""
        with self._changed:
            assert row.seq in self._open, "one row a request"
            self._rows[row.seq] = row
            self._open.discard(row.seq)
            self._ending.discard(row.seq)
            self._changed.notify_all()

    def rows(self) -> tuple[Row, ...]:
        """Every finished request, by order of arrival."""
        with self._changed:
            # Only requests that were ending when we came: others may follow without end.
            before = frozenset(self._ending)
            self._changed.wait_for(lambda: not before & self._ending, _BARRIER_SECONDS)
            return tuple(self._rows[seq] for seq in sorted(self._rows))

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no request is in flight; False when ``seconds`` passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def wait_received(self, count: int, seconds: float) -> bool:
        """Wait until ``count`` requests have arrived; False when ``seconds`` passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._last >= count, seconds)

    def wait_case(self, case: str, seconds: float) -> bool:
        """Wait until a request of this ``case`` has been read; False when late."""
        with self._changed:
            return self._changed.wait_for(lambda: case in self._cases, seconds)

    def totals(self, by: Total) -> dict[str | None, int]:
        """Cost in pico-USD per value of a row's field; unbilled requests count 0."""
        field = {"model": "executed_model"}.get(by, by)
        totals: dict[str | None, int] = {}
        for row in self.rows():
            key: str | None = getattr(row, field)
            totals[key] = totals.get(key, 0) + row.cost_pico
        return totals
