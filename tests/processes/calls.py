"""What every process of these tests records: one call of an agent, at a cost of its own."""

from __future__ import annotations

from pathlib import Path

import costspan
from costspan.adapter import Attempt
from costspan.core import recorder, upkeep
from costspan.core.journal import rung
from costspan.core.recorder import Ack

TENANTS = 5
CALLS_A_REQUEST = 3
IMPATIENT_SECONDS = 0.05
PATIENT_NS = 30 * 10**9


def configure(folder: Path | str, *, background: bool = False, beside: bool = True) -> None:
    """Books and spool in this folder; a background that works without pause, if any.

    `beside`: whether there is a folder for what the spool does not take.
    """
    place = Path(folder)
    be_patient()
    if background:
        upkeep.SYNC_SECONDS = upkeep.DRAIN_SECONDS = IMPATIENT_SECONDS
    costspan.configure(
        ledger=place / "ledger.db",
        spool=place / "spool",
        spool_beside=place / "beside" if beside else "off",
        background=background,
    )


def be_patient() -> None:
    """A machine that is busy with other tests is no slow disk: nobody is held for having waited."""
    for module in (recorder, rung):
        vars(module)["SLOW_NS"] = PATIENT_NS


def cost_of(number: int) -> str:
    """A cost in USD that few calls share, so that sums tell which of them are in the books."""
    return f"0.{number % 9973 + 1:06d}"


def begin(number: int) -> Attempt:
    """The intent of a call."""
    return Attempt.start(
        layer="sdk", provider="openai", requested_model="gpt-4o",
        tenant=f"tenant-{number % TENANTS}", tenant_source="context",
    )  # fmt: skip


def end(attempt: Attempt, number: int) -> str | None:
    """The result of a call: `OID COST` if it was acknowledged."""
    cost = cost_of(number)
    ack = attempt.end(flat_cost=cost, usage={"input": 7})
    return f"{ack.oid} {cost}" if isinstance(ack, Ack) else None


def call(number: int) -> str | None:
    """A whole call: `OID COST` if its end was acknowledged."""
    return end(begin(number), number)
