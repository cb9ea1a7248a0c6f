"""A ledger of somebody else's: a package with an entry point, checked from outside, as docs say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
"""Ledgers of scheme jar://: a folder of files."""

from costspan.core.hooks import hookimpl
from costspan.core.ledger_errors import LedgerMissing
from costspan.plugins.ledgers.sqlite.store import SqliteLedger


class JarLedger(SqliteLedger):
    """Keeps the books as SQLite does; a real one would not."""

    def roll_ups(self, period=None, owner=None, posted_period=None):
        for line in super().roll_ups(period, owner, posted_period):
            yield line{fault}


@hookimpl
def open_ledger(url, create):
    scheme, _, path = url.partition("://")
    return JarLedger(path, create=create) if scheme == "jar" else None
'''

FACTORY = '''
"""Where the suite may make ledgers."""

from costspan.conformance.ledgers.factory import LedgerFactory


class Jars(LedgerFactory):
    name = "jar"

    def open(self, folder):
        self.folder, self.made = folder, 0

    def url(self):
        self.made += 1
        return f"jar://{self.folder}/{self.made}.jar"
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    (folder / "jars-1.0.dist-info").mkdir(parents=True)
    (folder / "jars").mkdir()
    about = folder / "jars-1.0.dist-info"
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: jars\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text("[costspan]\njars = jars\n", "utf-8")
    (folder / "jars" / "conformance.py").write_text(FACTORY, "utf-8")
    return folder


def checked(site: Path, *more: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """The suite, called in a folder that has nothing to do with either package."""
    (site / "jars" / "__init__.py").write_text(PLUGIN.format(fault=fault), "utf-8")
    here = site.with_name("elsewhere")
    here.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    command += ["--rootdir", str(here), "--pyargs", "costspan.conformance"]
    command += ["--ledger", "jars.conformance:Jars", *more]
    installed = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        command, cwd=here, capture_output=True, text=True, timeout=280,
        env={**os.environ, "PYTHONPATH": installed},
    )  # fmt: skip


def test_it_is_found_by_its_entry_point_and_passes(site: Path) -> None:
    """In other processes too; and what a host recorded gives the same books in it."""
    some = "twice or another_process or killed_leaves or in_the_middle or C01-sync"
    said = checked(
        site, "--adapter", "costspan.conformance.drivers.manual:driver", "-k", some, "-rs"
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "jar has no server that the suite may kill" in said.stdout
    assert " ok" in said.stdout


def test_it_is_told_what_must_be_what_was_expected_and_what_was_found(site: Path) -> None:
    """It loses a pico-dollar of every line."""
    fault = "._replace(cost=line.cost - 1)"
    said = checked(site, "-k", "overlapping", fault=fault)
    assert said.returncode == 1
    [text] = said.stdout.split("test_overlapping_batches_count_once ")[1:2]
    told = text.partition("short test summary")[0]
    assert "amounts are lost or doubled" in told
    assert "  expected {('t0', 'direct', '2026-02'): (5000000000000, 5000000000000)" in told
    assert "  found    {('t0', 'direct', '2026-02'): (4999999999999, 5000000000000)" in told
    assert "what must be" in told
    assert "Also within one batch, and in another order." in told
    assert "Traceback" not in told


def test_it_is_told_which_cell_gives_other_books_in_it(site: Path) -> None:
    fault = "._replace(cost=line.cost - 1)"
    manual = "costspan.conformance.drivers.manual:driver"
    said = checked(site, "--adapter", manual, "-k", "C01-sync", fault=fault)
    assert said.returncode == 1
    assert "C01 on manual (sync): jar makes other books than sqlite of the same records" in (
        said.stdout
    )
    assert "  roll_ups[0].cost: expected " in said.stdout
