"""`costspan drain --watch`: it drains again and again, says how it goes, and ends when asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest
from desk import Desk
from sidecar import Sidecar, parse

import costspan
from costspan.cli.exits import UsageError
from costspan.cli.watch import Watcher
from costspan.cli.watch_options import Plan, address_of
from costspan.core import config, hooks, runtime
from costspan.core.drain import drain
from costspan.core.journal import records, spool
from costspan.core.settle import settle
from costspan.core.settle.ledger import open_url

HALF_A_DOLLAR = {
    "requested_model": "gpt-4o",
    "executed_model": "gpt-4o",
    "usage": {"input": 200_000},
    "provider_result": "ok",
}
PLAN = Plan(0.05, 1, 300, 0, None, False)


@pytest.fixture(autouse=True)
def _no_folder_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_SPOOL_BESIDE", "off")


def _record(desk: Desk, folder: Path, times: int = 1, tenant: str = "acme") -> None:
    costspan.configure(ledger=desk.ledger, spool=folder, background=False)
    now = datetime.now(UTC)
    for _ in range(times):
        moment = int(now.timestamp()) * 10**9
        costspan.record({"tenant": tenant, **HALF_A_DOLLAR, "started_at": moment})
    runtime.recorder().rotate()


def _watcher(plan: Plan = PLAN) -> Watcher:
    return Watcher(config.load(), (), plan)


def test_several_spools_one_of_them_later(empty: Desk, tmp_path: Path) -> None:
    here, later = tmp_path / "here", tmp_path / "later"
    _record(empty, here, 3)
    with Sidecar("--spool", here, later) as sidecar:
        sidecar.until(lambda: sidecar.value("records_settled_total") == 3)
        assert any(f"from {later} (not there yet)" in line for line in sidecar.said)
        _record(empty, later, 2)
        sidecar.until(lambda: sidecar.value("records_settled_total") == 5)
        sidecar.until(lambda: sidecar.value("spool_segments", folder=str(later)) == 0)
        assert sidecar.value("spool_bytes", folder=str(here)) == 0
        assert sidecar.value("spool_oldest_seconds", folder=str(here)) == 0
        assert sidecar.value("segments_drained_total") == 2
        assert sidecar.value("ledger_up") == 1
        assert sidecar.value("last_success_timestamp_seconds") is not None
        health = sidecar.get("/health")
        assert (health.status, health.text[:28]) == (200, "ok: the last drain succeeded")
        assert sidecar.get("/health", "HEAD") == (200, "")
        assert sidecar.get("/elsewhere").status == 404
        assert sidecar.get("/metrics", "POST").status == 501
        assert sidecar.end() == 0
    assert sidecar.said[-1].endswith("ends: 2 segments drained, 5 new observations\n")
    assert empty.run("report", "--json").json["totals"]["cost"] == "2.500000000000"


def test_the_ledger_is_heard_from_though_nothing_waits(empty: Desk) -> None:
    """Else /health would say 503 of a place where nobody works."""
    with Sidecar("--late", 0.9) as sidecar:
        sidecar.until(lambda: (sidecar.value("drains_total") or 0) > 4)
        assert sidecar.value("segments_drained_total") == 0
        assert sidecar.end() == 0


def test_it_ends_after_the_batch_under_way(empty: Desk) -> None:
    """What is settled is settled; the rest waits for the next, and nothing comes twice."""
    _record(empty, empty.spool, 4000)
    one_by_one = "from costspan.core import drain; drain.RECORDS_PER_SETTLEMENT = 1"
    with Sidecar(code=one_by_one) as sidecar:
        # The whole takes seconds; a batch, a moment.
        sidecar.until(lambda: (sidecar.value("records_settled_total") or 0) > 0)
        assert sidecar.end(signal.SIGINT) == 0
    assert len(spool.segments(empty.spool)) == 1
    done = drain(config.load())
    assert 0 < done.settled.duplicates < 4000
    assert done.settled.duplicates + done.settled.observations == 4000
    assert empty.run("report", "--json").json["totals"]["cost"] == "2000.000000000000"


def test_asked_again_and_again_it_ends_as_if_asked_once(empty: Desk) -> None:
    """A group is told by its shell and by its parent; `timeout` tells the child and the group."""
    with Sidecar() as sidecar:
        assert sidecar.end_asked_again() == 0
    assert sidecar.said[-1].startswith("ends: ") or " ends: " in sidecar.said[-1]


def test_a_folder_whose_name_is_no_text_is_one_label(empty: Desk, tmp_path: Path) -> None:
    (odd := tmp_path / os.fsdecode(b'bad\xff\n"')).mkdir()
    with Sidecar("--spool", odd) as sidecar:
        assert sidecar.value("spool_segments", folder=f'{tmp_path}/bad\\udcff\n"') == 0


@pytest.mark.parametrize(("options", "left"), [((), 1), (("--last-drain",), 0)])
def test_a_last_drain_for_a_spool_that_goes(
    empty: Desk, options: tuple[str, ...], left: int
) -> None:
    with Sidecar("--every", 3600, *options) as sidecar:
        sidecar.until(lambda: sidecar.value("drains_total") == 1)
        _record(empty, empty.spool)
        assert sidecar.end() == 0
    assert len(spool.segments(empty.spool)) == left


def test_a_ledger_that_cannot_be_opened_for_a_while(empty: Desk) -> None:
    """Records wait, and it is said why; what the ledger would say is not known meanwhile."""
    _record(empty, empty.spool, 2)
    moved = empty.ledger.rename(empty.folder / "kept.db")
    empty.ledger.mkdir()
    with Sidecar("--late", 0.2) as sidecar:
        sidecar.until(lambda: "no drain has succeeded for" in sidecar.get("/health").text)
        sidecar.until(lambda: "cannot be opened" in sidecar.get("/health").text)
        health = sidecar.get("/health")
        assert health.status == 503
        assert f"1 segment waits in {empty.spool}, for" in health.text
        found = sidecar.metrics()
        assert sidecar.value("ledger_up") == 0
        assert sidecar.value("drain_failures_total", type="LedgerError")
        assert sidecar.value("spool_segments", folder=str(empty.spool)) == 1
        for unknown in ("last_success_timestamp_seconds", "events_open", "records_unreadable"):
            assert f"costspan_{unknown}" not in found
        empty.ledger.rmdir()
        moved.rename(empty.ledger)
        sidecar.until(lambda: sidecar.value("records_settled_total") == 2)
        sidecar.until(lambda: sidecar.value("ledger_up") == 1)
        assert sidecar.end() == 0
    told = [line for line in sidecar.said if "the records wait" in line or "drains again" in line]
    assert len(told) == 2
    assert "drains again, after " in told[1]


def test_segments_that_wait_for_too_long(empty: Desk) -> None:
    """Drains succeed, and a segment stays: a newer costspan wrote a record of it."""
    from costspan.core.journal.frames import MAGIC, frame

    empty.spool.mkdir()
    path = empty.spool / f"{spool.segment_name(1, 'w', 0)}.seg"
    path.write_bytes(MAGIC + frame(b"\x7f"))
    os.utime(path, ns=(0, 0))
    watcher = _watcher()
    assert watcher.turn()
    answer = watcher.pages()["/health"]()
    assert answer.status == 503
    assert f"1 segment waits in {empty.spool}, for" in answer.text
    assert parse(watcher.pages()["/metrics"]().text)["costspan_records_unreadable"] == {
        frozenset(): 1
    }


def test_a_spool_that_cannot_be_read(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = empty.folder / "file"
    file.write_text("", "utf-8")
    monkeypatch.setenv("COSTSPAN_SPOOL", str(file))
    watcher = _watcher()
    watcher.turn()
    answer = watcher.pages()["/health"]()
    assert answer.status == 503
    assert f"{file} cannot be read" in answer.text
    found = parse(watcher.pages()["/metrics"]().text)
    assert found["costspan_spool_unreadable"] == {frozenset({("folder", str(file))}): 1}
    assert "costspan_spool_segments" not in found


def test_what_the_ledger_says(shop: Desk) -> None:
    told = records.Refusals("w9", {"disk:28": 4, "too_large": 1}, 0)
    with closing(open_url(f"sqlite:///{shop.ledger}", create=False)) as ledger:
        settling = ledger.settling(0)
        with settling as settlement:
            settle(settlement, [], [told])
    watcher = _watcher()
    assert watcher.turn()
    found = parse(watcher.pages()["/metrics"]().text)
    assert found["costspan_events_open"] == {frozenset(): 1}
    assert found["costspan_events_unpriced"] == {frozenset(): 1}
    refused = found["costspan_records_refused_total"]
    assert refused[frozenset({("reason", "disk:28")})] == 4
    assert "costspan_charge_usd" not in found
    for tenant in ("acme", "globex", "calc"):
        assert tenant not in watcher.pages()["/metrics"]().text.replace(str(shop.folder), "")


def test_the_tenants_charged_most(empty: Desk) -> None:
    """They and the rest add up to the month; a name cannot pass for a label, or for the rest."""
    names = ('o"ne\\', "other", "third")
    for times, tenant in ((4, names[0]), (3, names[1]), (2, names[2]), (1, "fourth")):
        _record(empty, empty.spool, times, tenant)
    watcher = _watcher(PLAN._replace(tenants=2))
    assert watcher.turn()
    charges = parse(watcher.pages()["/metrics"]().text)["costspan_charge_usd"]
    month = datetime.now(UTC).strftime("%Y-%m")
    by_tenant = {dict(labels)["tenant"]: value for labels, value in charges.items()}
    assert by_tenant == {names[0]: 2, "other": Decimal("1.5"), "@other": Decimal("1.5")}
    assert {dict(labels)["period"] for labels in charges} == {month}


def test_sinks_are_brought_what_was_posted(empty: Desk) -> None:
    taken: list[int] = []
    module = ModuleType("taker")
    module.posted = hooks.hookimpl(  # type: ignore[attr-defined]  # made by hand
        lambda batch: taken.extend([batch.first, batch.last])
    )
    hooks.plugins().register(module, "taker")
    try:
        _record(empty, empty.spool, 3)
        assert _watcher().turn()
        from costspan.core import sinks

        sinks.deliver(config.load(), wait=True)
        assert taken == [1, 3]
    finally:
        hooks.plugins().unregister(name="taker")


APP = """
import sys, costspan
costspan.record({"tenant": "acme", "flat_cost": "0.5"})
print("recorded", flush=True)
sys.stdin.read()
costspan.record({"tenant": "acme", "flat_cost": "0.25"})
"""


def test_an_application_that_leaves_draining_to_others(empty: Desk) -> None:
    """It needs no way to the ledger; what it recorded last comes though it records nothing more."""
    nowhere = empty.folder / "nowhere.db"
    settings = {**os.environ, "COSTSPAN_DRAIN": "off", "COSTSPAN_LEDGER": str(nowhere)}
    app = subprocess.Popen(
        [sys.executable, "-c", APP], env=settings, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert app.stdin is not None
    assert app.stdout is not None
    assert app.stdout.readline() == "recorded\n"
    with Sidecar() as sidecar:
        sidecar.until(lambda: sidecar.value("records_settled_total") == 1)
        assert sidecar.end() == 0
    app.stdin.close()
    assert app.wait() == 0
    app.stdout.close()
    # Nor does it drain when it ends.
    assert len(spool.segments(empty.spool)) == 1
    assert not nowhere.exists()


def test_a_setting_of_draining_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_DRAIN", "maybe")
    with pytest.raises(config.ConfigError, match="it is 'on' or 'off'"):
        config.load()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9000", ("127.0.0.1", 9000)),
        ("0.0.0.0:9000", ("0.0.0.0", 9000)),
        ("[::1]:9000", ("::1", 9000)),
        ("localhost", None),
        (":9000", None),
        ("127.0.0.1:70000", None),
    ],
)
def test_where_it_listens(text: str, address: tuple[str, int] | None) -> None:
    if address is None:
        with pytest.raises(UsageError, match="write HOST:PORT"):
            address_of(text)
    else:
        assert address_of(text) == address


@pytest.mark.parametrize(
    "options",
    [
        ("--every", "0", "--watch"),
        ("--late", "nan", "--watch"),
        ("--tenants", "-1", "--watch"),
        ("--json", "--watch"),
        ("--sweep-older", "0", "--watch"),
        ("--listen", "off"),
        ("--last-drain",),
    ],
)
def test_options_that_cannot_be_used(empty: Desk, options: tuple[str, ...]) -> None:
    ran = empty.run("drain", *options)
    assert ran.code == 2
    assert ran.err.startswith("costspan drain: --")


def test_an_address_that_is_taken(empty: Desk) -> None:
    with Sidecar() as sidecar:
        ran = empty.run("drain", "--watch", "--listen", sidecar.address)
        assert ran.code == 2
        assert f"--listen {sidecar.address}: " in ran.err
