"""Several sidecars on one PostgreSQL ledger, of one spool and of two: killed, cut off, ended.

Whoever settles what, every record is in the books once, and each endpoint says how it stands.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")

import psycopg
from calls import be_patient
from children import environment, until
from outages import PostgresServer, Way, a_way_to, server, url_by

from costspan.cli.watch import Watcher
from costspan.cli.watch_options import Plan
from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.journal import spool
from costspan.core.ledger_errors import LedgerMissing
from costspan.core.money import PICO
from costspan.core.recorder import Ack, Recorder
from costspan.core.schema import Observation
from costspan.core.settle.ledger import open_url

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from sidecar import Sidecar

__all__ = ["server"]

ROUNDS, ROUNDS_FULL = 1, 6
CALLS = 60
HANGS = ("silent", "mute")
HOSTILE = ('a"b', "a\\b", "a\nb", 'x"} 1\ncostspan_ledger_up 0 #', "ä☃", "{=,}", "plain")
LEASE_WAITERS = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    found = server.database()
    yield found
    server.drop(found)


@pytest.fixture
def way(server: PostgresServer) -> Iterator[Way]:
    with a_way_to(server) as found:
        yield found


def settings_of(url: str) -> dict[str, object]:
    return {"COSTSPAN_LEDGER": url, "COSTSPAN_SPOOL_BESIDE": "off"}


class Writer:
    """Records calls into a folder, a segment every few."""

    def __init__(self, folder: Path) -> None:
        be_patient()
        self._recorder = Recorder(folder)
        self._name = folder.name
        self.calls = 0

    def record(self, many: int, tenant: str = "acme") -> None:
        for _ in range(many):
            self.calls += 1
            told: dict[str, Any] = {"attempt_id": f"{self._name}.{self.calls}", "tenant": tenant}
            told["ended_at"] = time.time_ns()
            seen = Observation(flat_cost="1", provider_result="ok", **told)
            assert isinstance(self._recorder.record(seen), Ack)
            if self.calls % 7 == 0:
                self._recorder.rotate()
        self._recorder.rotate()


def says(each: Sidecar, metric: str, value: int) -> Callable[[], bool]:
    return lambda: each.value(metric) == value


def is_well(each: Sidecar) -> Callable[[], bool]:
    return lambda: each.get("/health").status == 200


def was_told_busy(each: Sidecar) -> Callable[[], bool]:
    return lambda: bool(each.value("drain_failures_total", type="LedgerBusy"))


def events(url: str) -> int | None:
    """How many the ledger has; None if there is none yet."""
    with suppress(LedgerMissing), closing(open_url(url, create=False)) as ledger:
        return ledger.counts("events")["events"]
    return None


def test_two_spools_and_two_sidecars_on_one_of_them(
    url: str, tmp_path: Path, is_full: bool
) -> None:
    """Three sidecars; each round one is killed -9 in the middle, and started again."""
    one, two = tmp_path / "one", tmp_path / "two"
    folders = (one, one, two)
    writers = [Writer(one), Writer(two)]
    with ExitStack() as stack:

        def start(folder: Path) -> Sidecar:
            options = ("--spool", folder, "--late", 120)
            return stack.enter_context(Sidecar(*options, settings=settings_of(url)))

        running = [start(folder) for folder in folders]
        for number in range(ROUNDS_FULL if is_full else ROUNDS):
            for writer in writers:
                writer.record(CALLS)
            at = number % len(folders)
            running[at].kill()
            running[at] = start(folders[at])
        until(lambda: events(url) == sum(each.calls for each in writers), "all to be settled")
        until(lambda: not (spool.segments(one) or spool.segments(two)), "the disk given back")
        pages = [each.metrics() for each in running]
        for each, folder in zip(running, folders, strict=True):
            each.until(is_well(each))
            each.until(says(each, "events_open", 0))
            assert each.value("spool_segments", folder=str(folder)) == 0
        # What a killed one settled and did not tell is in nobody's count: no more than there is.
        settled = [page["costspan_records_settled_total"][frozenset()] for page in pages]
        assert 0 < sum(settled) <= sum(each.calls for each in writers)
        assert [each.end() for each in running] == [0, 0, 0]
    check(url, writers)


def check(url: str, writers: list[Writer]) -> None:
    calls = sum(each.calls for each in writers)
    with closing(open_url(url, create=False)) as ledger:
        assert ledger.counts("events", "observations") == {"events": calls, "observations": calls}
        assert sum(each.cost for each in ledger.roll_ups()) == calls * PICO
        assert list(ledger.roll_ups()) == list(ledger.added_up())
        assert all(last == kept for _, last, kept in ledger.writers())


def test_they_wait_for_the_one_that_settles(url: str, tmp_path: Path) -> None:
    """The lease is held: both wait in the database, are told busy, are well, and end when asked."""
    from costspan.plugins.ledgers.postgres.migrations import lease

    writers = [Writer(tmp_path / "one"), Writer(tmp_path / "two")]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                Sidecar("--spool", tmp_path / name, "--wait", 1, settings=settings_of(url))
            )
            for name in ("one", "two")
        ]
        for each in running:
            each.until(says(each, "ledger_up", 1))
        with psycopg.connect(url) as settler, psycopg.connect(url, autocommit=True) as looks:
            settler.execute(lease("costspan").encode())
            for writer in writers:
                writer.record(CALLS)
            until(lambda: looks.execute(LEASE_WAITERS).fetchone() == (2,), "both to wait")
            for each in running:
                each.until(was_told_busy(each))
                assert each.value("ledger_up") == 1
                assert each.get("/health").status == 200
            assert running[1].end() == 0
            settler.rollback()
        until(lambda: not spool.segments(tmp_path / "one"), "the first to settle")
        assert running[0].end() == 0
    assert len(spool.segments(tmp_path / "two")) > 0
    drain(Config(ledger=url, spool=tmp_path / "two"))
    check(url, writers)


@pytest.mark.parametrize("kind", HANGS)
def test_a_server_that_says_nothing(kind: str, url: str, way: Way, tmp_path: Path) -> None:
    """It is unhealthy, ends in time all the same, and nothing of it is lost."""
    folder = tmp_path / "one"
    writer = Writer(folder)
    code = "from costspan.cli import watch; watch.GRACE_SECONDS = 1"
    settings = settings_of(url_by(way, url))
    with Sidecar("--spool", folder, "--late", 2, code=code, settings=settings) as sidecar:
        writer.record(CALLS)
        sidecar.until(lambda: sidecar.value("records_settled_total") == CALLS)
        until(lambda: not way.carried, "the drain to end")
        way.shut(kind)
        writer.record(CALLS)
        sidecar.until(lambda: "no drain has succeeded for" in sidecar.get("/health").text)
        assert sidecar.get("/health").status == 503
        if kind == "mute":
            sidecar.until(lambda: "one has been under way for" in sidecar.get("/health").text)
        way.open()
        sidecar.until(lambda: sidecar.get("/health").status == 200)
        sidecar.until(lambda: sidecar.value("records_settled_total") == 2 * CALLS)
        until(lambda: not way.carried, "the drain to end")
        way.shut(kind)
        writer.record(CALLS)
        until(lambda: way.taken, "a drain to ask in vain")
        assert sidecar.end() == 0
        assert "Traceback" not in "".join(sidecar.said)
    way.open()
    assert drain(Config(ledger=url, spool=folder)).settled.observations == CALLS
    check(url, [writer])


@pytest.mark.parametrize("kind", HANGS)
def test_doctor_while_a_server_says_nothing(kind: str, url: str, way: Way, tmp_path: Path) -> None:
    """It says so, in time, and shows what lies in the spools of several machines."""
    for name in ("one", "two"):
        Writer(tmp_path / name).record(CALLS)
    way.shut(kind)
    code = "from costspan.cli import patience; patience.OPEN_SECONDS = 3"
    start = f"{code}\nimport sys; from costspan.cli import main; sys.exit(main())"
    spools = [part for name in ("one", "two") for part in ("--spool", str(tmp_path / name))]
    secret = url_by(way, url).replace("postgres@", "postgres:se-cret@")
    done = subprocess.run(
        [sys.executable, "-c", start, "doctor", "--json", *spools],
        capture_output=True, text=True, timeout=60, check=False,
        env=environment(COSTSPAN_LEDGER=secret, COSTSPAN_SPOOL_BESIDE="off"),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert not said["is_reached"]
    assert "ledger_unreachable" in {each["check"] for each in said["findings"]}
    assert [each["waiting"] for each in said["writers"]] == [CALLS // 7 + 1] * 2
    assert len(said["spools"]) == 2
    assert "se-cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_names_of_tenants_in_the_metrics(url: str, tmp_path: Path) -> None:
    """A Prometheus client reads them as they are; the first N and the rest add up to the month."""
    from prometheus_client.parser import text_string_to_metric_families

    writer = Writer(tmp_path / "one")
    for times, tenant in enumerate(HOSTILE, 1):
        writer.record(times, tenant)
    pages: list[dict[str, Any]] = []
    for tenants in (3, 99):
        plan = Plan(1, 1, 1, tenants, listen=None, has_last_drain=False)
        watcher = Watcher(Config(ledger=url, spool=tmp_path / "one"), [], plan)
        assert watcher.turn()
        families = text_string_to_metric_families(watcher.pages()["/metrics"]().text)
        pages.append({family.name: family.samples for family in families})
    for page in pages:
        assert page["costspan_ledger_up"][0].value == 1
        assert all(name.startswith("costspan_") for name in page)
    for page, named in zip(pages, (3, len(HOSTILE)), strict=True):
        found = {each.labels["tenant"]: each.value for each in page["costspan_charge_usd"]}
        first = list(reversed(range(1, len(HOSTILE) + 1)))[:named]
        wanted = {HOSTILE[times - 1]: times for times in first}
        if named < len(HOSTILE):
            wanted["@other"] = writer.calls - sum(first)
        assert found == wanted
