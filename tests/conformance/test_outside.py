"""The suite as a stranger runs it: from a folder of their own, by its command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

DRIVER = """
from costspan.conformance.drivers.manual import Manual

class Mine(Manual):
    name = "mine"
    {body}
"""


def suite(folder: Path, adapter: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    command += ["--rootdir", str(folder), "--pyargs", "costspan.conformance"]
    command += ["--adapter", adapter, *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)


def mine(folder: Path, body: str, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(DRIVER.format(body=body), "utf-8")
    return suite(folder, "mine:Mine", *more)


def test_an_adapter_of_a_host_we_do_not_ship_passes(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    lines = (EXAMPLES / "openai_adapter.py").read_text("utf-8").splitlines()
    assert len(lines) < 150
    said = suite(tmp_path, "examples.openai_driver:driver")
    assert said.returncode == 0, said.stdout + said.stderr
    assert re.search(r"^C01 +one answer to one user +ok", said.stdout, re.MULTILINE)
    [counts] = re.findall(r"^(\d+) passed, (\d+) skipped in", said.stdout, re.MULTILINE)
    assert int(counts[0]) > 100


def test_what_is_not_claimed_is_skipped_with_its_reason(tmp_path: Path) -> None:
    said = mine(tmp_path, 'can = frozenset({"sync", "chat"})', "-k", "C06 or C01", "-rs")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "mine does not claim embeddings (embeddings)" in said.stdout
    assert "mine does not claim async (calls on an event loop)" in said.stdout
    assert re.search(r"^C01 .* ok", said.stdout, re.MULTILINE)
    assert re.search(r"^C06 .* - *$", said.stdout, re.MULTILINE)


def test_a_known_failure_that_passes_is_no_known_failure(tmp_path: Path) -> None:
    excuse = 'known_failures = {"C01-sync": "this host cannot do it, or so we thought"}'
    said = mine(tmp_path, excuse, "-k", "C01")
    assert said.returncode == 1
    assert "known_failures says: this host cannot do it, or so we thought" in said.stdout
    assert "Take it off the list." in said.stdout


TORN = """left = {times}

    def ask(self, ask):
        reply = super().ask(ask)
        if Mine.left:
            Mine.left -= 1
            try:
                raise {error}
            except Exception:
                raise RuntimeError("what the host makes of it")
        return reply

import httpx"""


@pytest.mark.parametrize(
    ("times", "error", "passed"),
    [
        (1, 'httpx.ReadError("torn")', True),
        (99, 'httpx.ReadError("torn")', False),
        (1, 'httpx.ReadTimeout("late")', False),
    ],
)
def test_a_host_that_loses_a_connection_plays_once_more_and_that_is_said(
    tmp_path: Path, times: int, error: str, passed: bool
) -> None:
    said = mine(tmp_path, TORN.format(times=times, error=error), "-k", "C01-sync")
    assert (said.returncode == 0) == passed, said.stdout
    again = re.search(r"ReplayedWarning: played again.*: httpx.ReadError: torn", said.stdout)
    assert (again is not None) == ("torn" in error)
    if not passed:
        assert "the host raised RuntimeError: what the host makes of it" in said.stdout


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('known_failures = {"Z99": "a scenario that there is not"}', "Z99 is no scenario"),
        ('known_failures = {"C01": "because"}', "C01 is excused without a reason"),
        ('can = Manual.can | {"telepathy"}', "'telepathy', a capability that nobody knows"),
        ('can = Manual.can | {"embedings"}', "is it 'embeddings'?"),
        ('can = frozenset({"chat"})', "claims neither 'sync' nor 'async'"),
    ],
)
def test_a_driver_that_excuses_itself_is_told(tmp_path: Path, body: str, why: str) -> None:
    said = mine(tmp_path, body, "-k", "whole")
    assert said.returncode == 1
    assert why in said.stdout


@pytest.mark.parametrize(
    "name", ["test_scenario", "test_the_suite_is_whole", "pytest_generate_tests", "host"]
)
def test_an_overridden_test_is_noticed(tmp_path: Path, name: str) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from costspan.conformance import AdapterConformance\n"
        "from costspan.conformance.drivers.manual import Manual\n\n"
        "class TestMine(AdapterConformance):\n"
        "    driver = Manual\n"
        f"    def {name}(self): pass\n",
        "utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    command += ["--rootdir", str(tmp_path), str(tmp_path)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert said.returncode == 2
    assert f"{name} is overridden" in said.stdout


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        ("nowhere:Mine", "No module named 'nowhere'"),
        ("mine:Other", "has no attribute 'Other'"),
        ("mine:Manual.name", "has no attribute 'Manual.name'"),
        ("mine:suite", "is no subclass of Driver"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_named(tmp_path: Path, adapter: str, why: str) -> None:
    (tmp_path / "mine.py").write_text(DRIVER.format(body="pass") + "\nsuite = 7\n", "utf-8")
    said = suite(tmp_path, adapter)
    assert said.returncode == 4
    assert f"--adapter {adapter}" in said.stderr
    assert why in said.stderr


@pytest.mark.parametrize(
    ("text", "why"), [("def (", "SyntaxError"), ("\n\nnowhere", "name 'nowhere' is not defined")]
)
def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "mine.py").write_text(text, "utf-8")
    said = suite(tmp_path, "mine:Mine")
    assert said.returncode == 4
    assert why in said.stderr
    assert "mine.py" in said.stderr
    assert "Traceback" not in said.stderr


def test_two_drivers_of_one_name_are_refused(tmp_path: Path) -> None:
    said = mine(tmp_path, "pass", "--adapter", "mine:Mine")
    assert said.returncode == 4
    assert "2 drivers are named 'mine'" in said.stderr


def test_other_peoples_tests_do_not_import_costspan(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import sys\n\ndef test_theirs():\n    assert 'costspan' not in sys.modules\n", "utf-8"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    command += ["--rootdir", str(tmp_path), str(tmp_path)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stdout
