"""A call to a gateway that is metered there is marked, however it comes into the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import costspan
from costspan.core import drain, runtime
from costspan.core.schema import Observation

GATEWAY = "http://gateway.test/v1"
SEEN: dict[str, Any] = {
    "attempt_id": "mine", "tenant": "acme", "flat_cost": "1", "provider_result": "ok",
    "attributes": {"base_url": GATEWAY},
}  # fmt: skip


@pytest.mark.parametrize("given", ["fields", "observation", "import"])
def test_the_clients_view_makes_no_event(tmp_path: Path, given: str) -> None:
    costspan.configure(
        ledger=tmp_path / "l.db", spool=tmp_path / "s", gateways=[GATEWAY], background=False
    )
    if given == "import":
        imported = msgspec.convert({**SEEN, "oid": "import:1"}, Observation)
        drain.add_observations(runtime.settings(), [imported])
    else:
        costspan.record(SEEN if given == "fields" else Observation(**SEEN))
    costspan.flush()
    with costspan.open_ledger() as books:
        assert list(books.events()) == []
        assert [kind for kind, _, _ in books.ledger.problems()] == ["unmatched_downstream"]
