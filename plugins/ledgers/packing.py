"""An event as the bytes of its row: its facts, its decision, what is posted for it.

What thousands of events share (a ruling) is kept once and named by a number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from costspan.core.decide import Decision, Ruling, Share
from costspan.core.join import Event
from costspan.core.schema import Observation, Outcome
from costspan.core.settle.entries import Posted, Settled

_RULINGS_MAX = 10_000


class _Decided(msgspec.Struct, array_like=True, frozen=True, gc=False):
    ruling: int
    driver: str | None
    via: str | None
    owner: str
    cost: int | None
    charge: int | None
    shares: tuple[Share, ...]
    flags: tuple[str, ...]
    price_row: str | None
    requested_row: str | None


class _Content(msgspec.Struct, array_like=True, frozen=True, gc=False):
    id: str
    facts: Observation
    outcome: Outcome
    is_open: bool
    is_swept: bool
    oid_names: tuple[str, ...]
    span_names: tuple[str, ...]
    decided: _Decided | None
    posted: Posted


_encode = msgspec.msgpack.Encoder().encode
_decode_content = msgspec.msgpack.Decoder(_Content).decode
_decode_ruling = msgspec.msgpack.Decoder(Ruling).decode


class Packing(ABC):
    """Packs and unpacks events; remembers rulings. How they are kept is the ledger's part."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._rulings: dict[int, Ruling] = {}

    @abstractmethod
    def keep_ruling(self, number: int, key: str, content: bytes) -> None:
        """Keep a ruling, unless it is kept."""

    @abstractmethod
    def find_ruling(self, number: int) -> bytes | None:
        """The ruling of this number."""

    def forget(self) -> None:
        """After a rollback, or somebody's rebuild: a ruling that was kept may not be there."""
        self._numbers.clear()

    def pack(self, each: Settled) -> bytes:
        """The bytes of an event as it stands; keeps its ruling, if it is a new one."""
        event, decision = each.event, each.decision
        decided = None
        if decision is not None:
            decided = _Decided(
                self._number(decision.ruling), decision.driver, decision.via, decision.owner,
                decision.cost, decision.charge, decision.shares, decision.flags,
                decision.price_row, decision.requested_row,
            )  # fmt: skip
        return _encode(
            _Content(
                event.id, event.facts, event.outcome, event.is_open, event.is_swept,
                event.oid_names, event.span_names, decided, each.posted,
            )
        )  # fmt: skip

    def unpack(self, content: bytes) -> Settled:
        """The event that `pack` wrote."""
        kept = _decode_content(content)
        facts, decided = kept.facts, kept.decided
        event = Event(
            id=kept.id, facts=facts, outcome=kept.outcome, is_open=kept.is_open,
            is_swept=kept.is_swept, operation_names=facts.operation_ids,
            oid_names=kept.oid_names, span_names=kept.span_names,
        )  # fmt: skip
        decision = None
        if decided is not None:
            decision = Decision(
                self._ruling(decided.ruling), decided.driver, decided.via, decided.owner,
                decided.cost, decided.charge, decided.shares, decided.flags,
                decided.price_row, decided.requested_row,
            )  # fmt: skip
        return Settled(event=event, decision=decision, posted=kept.posted)

    def _number(self, ruling: Ruling) -> int:
        """Half of its digest: the same in every ledger, so what is remembered never goes stale."""
        key = ruling.key
        number = self._numbers.get(key)
        if number is None:
            number = int.from_bytes(bytes.fromhex(key)[:8], "big", signed=True)
            self.keep_ruling(number, key, _encode(ruling))
            if len(self._numbers) >= _RULINGS_MAX:
                self._numbers.clear()
            self._numbers[key] = number
        return number

    def _ruling(self, number: int) -> Ruling:
        ruling = self._rulings.get(number)
        if ruling is None:
            content = self.find_ruling(number)
            if content is None:
                raise LookupError(f"the ledger has no ruling {number}")
            ruling = _decode_ruling(content)
            if len(self._rulings) >= _RULINGS_MAX:
                self._rulings.clear()
            self._rulings[number] = ruling
        return ruling
