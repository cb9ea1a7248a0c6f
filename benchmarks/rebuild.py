"""Rebuilding a ledger with revisions, assignments and a closed period: identical books, how fast.

    python benchmarks/rebuild.py [--attempts N] [--json]

Exits with 1 if the sealed postings or the nets of the rebuilt books differ from those before.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from settle import batches, open_ledger, settle_all
from workload import DAY_NS, START_NS, STEP_NS, attempts

from costspan.core.config import Config
from costspan.core.journal.records import Assignment
from costspan.core.rebuild import nets, rebuild
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import broken_seals, close_period
from costspan.core.settle.ledger import Ledger

TARGET_PER_SECOND = 10_000
PERIOD = "2026-02"


def fill(path: Path, count: int) -> int:
    """A ledger with everything that makes a rebuild hard; returns how many records it took."""
    per_month = 28 * DAY_NS // STEP_NS
    early = max(count * 9 // 10, 1)
    late = per_month * 31 // 28 - early
    with closing(open_ledger(path)) as ledger:
        settle_all(ledger, attempts(early, seed=1))
        assign(ledger, attempts(early, seed=1), every=97)
        close_period(ledger, PERIOD, "benchmark", "month's end", START_NS + 60 * DAY_NS)
        settle_all(ledger, attempts(count - early, seed=2, after=early + late))
        revised = revise(ledger, attempts(early, seed=1), every=19)
        assign(ledger, attempts(early, seed=1), every=101)
    return 2 * count + revised


def assign(ledger: Ledger, pairs: Any, every: int) -> None:
    """Some events are somebody else's, an operator says."""
    said = [
        Assignment(str(start.attempt_id), "tenant-assigned", "benchmark", f"every {every}", every)
        for start, _ in islice(pairs, 0, None, every)
    ]
    with ledger.settling(30) as settlement:
        settle(settlement, [], said)


def revise(ledger: Ledger, pairs: Any, every: int) -> int:
    """The provider's own record of some attempts comes late, and says another usage."""
    revised = 0
    for batch in batches(islice(pairs, 0, None, every)):
        late = [
            Observation(
                oid=f"provider:{revised + at + 1}", attempt_id=end.attempt_id, layer="provider",
                provider_result="ok", usage={"input": 2000 + at % 100, "output": 60},
            )
            for at, (_, end) in enumerate(batch)
        ]  # fmt: skip
        revised += len(late)
        with ledger.settling(30) as settlement:
            settle(settlement, late)
    return revised


def books(path: Path) -> tuple[Any, ...]:
    with closing(open_ledger(path)) as ledger:
        return (
            nets(ledger), list(ledger.sealed(PERIOD)), ledger.closes(), ledger.counts("events"),
            broken_seals(ledger),
        )  # fmt: skip


def main() -> None:
    """Print what the rebuild reached, and whether the books are the same."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    gc.disable()  # as `costspan rebuild` does
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "ledger.db"
        records = fill(path, asked.attempts)
        before = books(path)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        rebuild(Config(ledger=str(path), spool=Path(scratch)))
        spent = time.process_time() - began
        after = books(path)
    names = ("nets", "sealed postings", "closes", "events", "broken seals")
    differing = [name for name, was, now in zip(names, before, after, strict=True) if was != now]
    found = {
        "attempts": asked.attempts,
        "records": records,
        "sealed_postings": len(before[1]),
        "events_per_second": asked.attempts / spent,
        "rss_grown_by": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / rss,
        "differing": differing,
    }
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(
                f"{name:20}{value:14,.2f}"
                if isinstance(value, float)
                else f"{name:20}{value!s:>14}"
            )
        print(f"target: {TARGET_PER_SECOND:,} events/s at flat memory")
    sys.exit(bool(differing or before[-1]))


if __name__ == "__main__":
    main()
