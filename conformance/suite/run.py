"""One scenario on one driver, from a fresh ledger to the verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

import costspan
from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.conformance.provider import contract_toml
from costspan.conformance.suite.driver import Driver
from costspan.conformance.suite.elsewhere import Recorded, settle_elsewhere
from costspan.conformance.suite.judge import judge, report
from costspan.conformance.suite.needs import needed
from costspan.conformance.suite.play import play
from costspan.conformance.suite.script import Mode, Scenario
from costspan.core import runtime
from costspan.core.drain import drain
from costspan.core.journal import spool


class LostConnection(Exception):
    """The books of a play are wrong whose host lost a connection to the provider.

    The script did not ask for it: they may be the right books of another play. Play it again.

    Attributes:
        lost: The connections, in words.
        wrong: What is wrong, as text.
    """

    def __init__(self, lost: Sequence[str], wrong: str) -> None:
        super().__init__(wrong)
        self.lost = "; ".join(lost)
        self.wrong = wrong


def run(
    scenario: Scenario,
    mode: Mode,
    driver: Driver,
    folder: Path,
    ledgers: Sequence[LedgerFactory] = (),
) -> str | None:
    """Play and judge; None where the books are right, else what is wrong, as text.

    Args:
        scenario: What to play.
        mode: `sync` or `async`.
        driver: An open driver.
        folder: An empty folder for ledger, spool and price contract.
        ledgers: What makes ledgers that what was recorded is settled in too.

    Raises:
        LostConnection: if the books are wrong, and a connection broke that was not meant to.
        OtherBooks: if the books of one of these differ from those that are judged.
    """
    contract = folder / "contract.toml"
    contract.write_text(contract_toml(without=scenario.unpriced_models), "utf-8")
    settings = costspan.configure(
        ledger=folder / "ledger.db",
        spool=folder / "spool",
        prices=contract,
        profile=scenario.profile,
        gateways=driver.gateways(scenario.host),
        background=False,
    )
    provider = driver.provider
    provider.wait_idle()
    seen = len(provider.truth)
    driver.begin(needed(scenario, mode))
    try:
        played = play(scenario, mode, driver)
    finally:
        driver.end()
    if not provider.wait_idle():
        played.problems.append("a request never ended at the provider")
    theirs, now_ns = driver.spools(), time.time_ns()
    runtime.recorder().rotate()
    spools = [*([each] for each in theirs), spool.folders_of(settings)]
    recorded = Recorded(spools, folder / "recorded")
    for each in theirs:  # without what a slow disk made this process write beside its own
        drain(msgspec.structs.replace(settings, spool=each, spool_beside=None))
    costspan.flush()
    # Whatever nobody saw end is swept, as it would be when its time is up: visible, never a 0.
    drain(settings, sweep_older_seconds=0, now_ns=now_ns)
    with costspan.open_ledger() as books:
        wrong = judge(scenario, played, books, provider.truth[seen:], provider.bugs)
        settle_elsewhere(ledgers, settings, recorded, now_ns, books.ledger)
    kept = f"costspan report --ledger {folder / 'ledger.db'} --by owner,bucket,model"
    if not wrong:
        return None
    said = report(scenario, wrong, f"{driver.name} ({mode})", kept)
    if played.lost:
        raise LostConnection(played.lost, said)
    return said
