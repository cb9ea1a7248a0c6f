"""The rows in `spend_logs.json` are what LiteLLM still writes: its own code makes them anew.

Only where its proxy is installed (or `COSTSPAN_PROXY_PYTHON` names a Python that has it).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from exports import causes, ingest, owners

from costspan.conformance.drivers.proxy_process import ProxyDied, interpreter
from costspan.conformance.provider import LoopbackProvider


def test_rows_made_anew_make_the_same_books(desk: Desk, rows: list[dict[str, Any]]) -> None:
    try:
        python = interpreter()
    except ProxyDied as error:
        pytest.skip(str(error))
    script = Path(__file__).with_name("spend_logs.py")
    with LoopbackProvider() as provider:
        made = subprocess.run(
            [python, str(script), provider.base_url, provider.url],
            check=True,
            capture_output=True,
            timeout=120,
        )
        billed = sum(row.cost_pico for row in provider.truth)
    anew = json.loads(made.stdout)
    assert [set(row) for row in anew] == [set(row) for row in rows]
    ran = ingest(desk, anew, "--json")
    assert causes(ran) == {"same": 6, "no_spend": 1, "no_usage": 1}
    assert int(ran.json["totals"]["ours"].replace(".", "")) == billed
    assert owners(desk)["globex"] == ("0.007845000000", 2)
