"""A real ledger for invoices, and documents kept in it as the command would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there

from papers import BY, NOW

from costspan.core.invoices.document import Order
from costspan.core.invoices.importing import Imported, documents_of, keep
from costspan.core.invoices.store import InvoiceStore
from costspan.core.settle.ledger import open_url


@pytest.fixture
def store(tmp_path: Path) -> Iterator[InvoiceStore]:
    ledger = open_url(f"sqlite:///{tmp_path}/ledger.db", create=True)
    yield ledger.invoices
    ledger.close()


@pytest.fixture
def read(store: InvoiceStore) -> Callable[..., list[Imported]]:
    """Import the bytes of a file (or, without bytes, an API) and return what was kept."""

    def importing(raw: bytes | None, place: str = "./file", **facts: Any) -> list[Imported]:
        order = Order(place=place, raw=raw, **{"at": NOW, **facts})
        return [
            kept
            for document in documents_of(order)
            for kept in keep(store, document, order, by=BY, at=NOW)
        ]

    return importing
