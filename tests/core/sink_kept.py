"""What the tests of sinks share: a sink that keeps what it is given, and how far each is."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

from costspan.core import sinks
from costspan.core.config import Config
from costspan.core.drain import add_observations
from costspan.core.schema import Observation
from costspan.core.settle.ledger import open_url
from costspan.core.sinks import Batch, Standing

Posted = Callable[[Batch], Any]
WAIT_SECONDS = 30


class Kept:
    """A sink that keeps what it is given; it fails as often as it is told to."""

    def __init__(self, fails: int = 0, error: BaseException | None = None) -> None:
        self.batches: list[bytes] = []
        self.tries = 0
        self._fails = fails
        self._error = error or RuntimeError("the other end is down")

    def __call__(self, batch: Batch) -> None:
        self.tries += 1
        self.batches.append(batch.to_json_lines())
        if self.tries <= self._fails:
            raise self._error

    @property
    def numbers(self) -> list[int]:
        return [json.loads(line)["number"] for each in self.batches for line in each.splitlines()]


def post(settings: Config, *numbers: int) -> None:
    """An event, and so a posting, of each number."""
    made = [
        Observation(oid=f"w:{n}", attempt_id=f"a{n:06d}", tenant="acme", flat_cost="0.5")
        for n in numbers
    ]
    add_observations(settings, made)


def reached(settings: Config) -> dict[str, Standing]:
    with closing(open_url(settings.ledger_url, create=False)) as ledger:
        return {each.sink: each for each in sinks.standings(ledger)}


def as_another_process() -> None:
    """What is remembered in memory goes with the process."""
    sinks._couriers.clear()
