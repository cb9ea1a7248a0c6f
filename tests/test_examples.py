"""The examples are run, not only shown."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from costspan.core import hooks
from costspan.core.prices import Prices

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
