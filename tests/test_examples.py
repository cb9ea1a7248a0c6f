"""The examples are run, not only shown."""

import importlib.util
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

from costspan.core import hooks
from costspan.core.prices import Prices

sys.path.insert(0, str(Path(__file__).parent / "plugins"))  # importlib mode puts no folder there

from installed import install, python

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_a_price_plugin_prices_its_model() -> None:
    manager = hooks.plugins()
    manager.register(load("plugin_prices"), "house-prices")
    try:
        found = dict(hooks.call("prices"))
        match = Prices(found["house-prices"]).find("house-llm-7b")
        assert match is not None
        # 10 input tokens at 0.10 USD per million, in pico-USD
        assert match.price({"input": 10}) == 10 * 100_000
    finally:
        manager.unregister(name="house-prices")


def test_a_plugin_that_raises_costs_nobody_else_anything() -> None:
    manager = hooks.plugins()
    broken = ModuleType("broken")

    @hooks.hookimpl
    def prices() -> list[object]:
        raise RuntimeError("no price list today")

    broken.prices = prices  # type: ignore[attr-defined]  # a module made by hand
    manager.register(broken, "broken")
    try:
        names = [name for name, _ in hooks.call("prices")]
        assert "broken" not in names
        assert "contract" in names
        problem = hooks.problems.pop()
        assert problem == ("broken", "prices", "RuntimeError: no price list today")
    finally:
        manager.unregister(name="broken")


RECORD = """
import costspan
costspan.configure(background=False)
for number in range({times}):
    costspan.record({{"tenant": "acme", "flat_cost": "0.5", "started_at": 1762300800 * 10**9}})
"""


def drained(site: Path, books: Path, lines: Path) -> dict[str, Any]:
    """`costspan drain` with the sink installed; how far the sink has come."""
    said = python(site, books, "-m", "costspan", "drain", "--json", COSTSPAN_JSONL=str(lines))
    (standing,) = json.loads(said)["sinks"]
    assert isinstance(standing, dict)
    return standing


def test_a_sink_that_writes_every_posting_once(tmp_path: Path) -> None:
    """Installed, drained, killed in the middle of a line, and given everything once more."""
    site, lines = tmp_path / "site", tmp_path / "postings.jsonl"
    site.mkdir()
    install(site, EXAMPLES / "jsonl_sink")
    python(site, tmp_path, "-c", RECORD.format(times=3))
    assert drained(site, tmp_path, lines)["taken"] == 3
    whole = lines.read_bytes()
    first = json.loads(whole.splitlines()[0])
    assert [json.loads(line)["number"] for line in whole.splitlines()] == [1, 2, 3]
    assert (first["cost"], first["currency"], first["owner"]) == ("0.500000000000", "USD", "acme")
    # The sink was killed while it wrote, and its cursor had not moved.
    lines.write_bytes(whole[:-7])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE cursors SET posting = 0 WHERE sink = 'jsonl'")
    python(site, tmp_path, "-c", RECORD.format(times=2))
    assert drained(site, tmp_path, lines)["waiting"] == 0
    again = lines.read_bytes()
    assert again.startswith(whole)
    assert [json.loads(line)["number"] for line in again.splitlines()] == [1, 2, 3, 4, 5]
