"""Plays a scenario's script through a driver: in threads, or on an event loop.

The player is written once, as coroutines. In sync mode they call the driver's blocking methods and
never suspend, so `drive` runs them to their end in whatever thread they are in.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from costspan.conformance.suite.driver import Driver
from costspan.conformance.suite.player import WAIT_SECONDS, Played, Player
from costspan.conformance.suite.script import Mode, Scenario, Step
from costspan.conformance.suite.threads import drive


def play(scenario: Scenario, mode: Mode, driver: Driver) -> Played:
    """Play for all tenants at once and wait until the host has handed over its callbacks.

    Raises nothing of the host's: what it raised against the script is in `problems`.
    """
    played = Played()
    players = [
        Player(driver, mode, tenant, factor, played) for tenant, factor in scenario.tenants.items()
    ]
    if mode == "async":
        asyncio.run(_play_async(players, scenario.script, driver))
        return played
    together = threading.Barrier(len(players), timeout=WAIT_SECONDS)

    def one(player: Player) -> None:
        together.wait()
        drive(player.play(scenario.script))

    with ThreadPoolExecutor(len(players)) as threads:
        list(threads.map(one, players))
    driver.finish()
    return played


async def _play_async(players: list[Player], script: tuple[Step, ...], driver: Driver) -> None:
    await asyncio.gather(*(player.play(script) for player in players))
    await driver.afinish()
