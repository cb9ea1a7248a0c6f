"""One scenario on one driver, from a fresh ledger to the verdict."""

from __future__ import annotations

from pathlib import Path

import msgspec

import costspan
from costspan.conformance.provider import contract_toml
from costspan.conformance.suite.driver import Driver
from costspan.conformance.suite.judge import judge, report
from costspan.conformance.suite.needs import needed
from costspan.conformance.suite.play import play
from costspan.conformance.suite.script import Mode, Scenario
from costspan.core.drain import drain


def run(scenario: Scenario, mode: Mode, driver: Driver, folder: Path) -> str | None:
    """Play and judge; None where the books are right, else what is wrong, as text.

    Args:
        scenario: What to play.
        mode: `sync` or `async`.
        driver: An open driver.
        folder: An empty folder for ledger, spool and price contract.
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
    for spool in driver.spools():
        drain(msgspec.structs.replace(settings, spool=spool))
    costspan.flush()
    # Whatever nobody saw end is swept, as it would be when its time is up: visible, never a 0.
    drain(settings, sweep_older_seconds=0)
    with costspan.open_ledger() as books:
        wrong = judge(scenario, played, books, provider.truth[seen:], provider.bugs)
    kept = f"costspan report --ledger {folder / 'ledger.db'} --by owner,bucket,model"
    return report(scenario, wrong, f"{driver.name} ({mode})", kept) if wrong else None
