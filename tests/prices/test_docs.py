"""The files that docs/prices.md shows are files that can be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from costspan.core.prices import PriceBook
from costspan.core.prices.capacity_file import Capacity, load_capacity
from costspan.core.prices.charge_file import load_charges
from costspan.core.prices.charges import ChargeBook
from costspan.core.prices.contract import load

Read = PriceBook | ChargeBook | list[Capacity]
PAGE = Path(__file__).parents[2] / "docs" / "prices.md"


def test_every_file_of_the_page_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    loaders: dict[str, Callable[[Path], Read]] = {
        "[[price]]": load,
        "[[charge]]": load_charges,
        "[[capacity]]": load_capacity,
    }
    found: list[Read] = []
    for block in blocks:
        path = tmp_path / "page.toml"
        path.write_text(block, "utf-8")
        (loader,) = [loader for mark, loader in loaders.items() if mark in block]
        found.append(loader(path))
    prices, charges, gpus = found
    assert isinstance(prices, PriceBook)
    assert isinstance(charges, ChargeBook)
    assert isinstance(gpus, list)
    assert (len(prices.rows), len(charges.entries), len(gpus)) == (2, 3, 1)
