"""What the caller pays for a record, on its own thread, beside one `os.write`.

    python benchmarks/record.py [--rounds N] [--json]

Nothing here is a test: see `turns` for how it is measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from turns import Line, Target, as_json, best, show

import costspan
from costspan.adapter import Attempt
from costspan.core import clean, runtime
from costspan.core.journal.records import encode_body

CALLS = 100
_TITLE = "On the caller's thread"


def caller(folder: Path, rounds: int) -> list[Line]:
    """What is paid on the caller's own thread, spool append and all."""
    fields = {
        "operation_ids": ("litellm:c",), "layer": "gateway", "kind": "model", "phase": "end",
        "attempt_id": "01890a5d-ac96-774b-bcce-b302099a8057", "tenant": "acme",
        "tenant_source": "context", "session": "s-1", "provider": "openai",
        "requested_model": "gpt-4o", "executed_model": "gpt-4o",
        "usage": {"input": 100, "output": 10}, "usage_source": "provider",
        "provider_result": "ok", "started_at": time.time_ns(),
    }  # fmt: skip
    observation = clean.observation(fields)
    body = encode_body(observation)
    fd = os.open(folder / "raw", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def start() -> Attempt:
        return Attempt.start(layer="gateway", requested_model="gpt-4o", provider="openai")

    def call() -> None:
        start().end(usage={"input": 100, "output": 10}, executed_model="gpt-4o")

    found = best(
        {
            "one os.write of the same size": lambda: os.write(fd, body),
            "record() of an observation": lambda: runtime.record(observation),
            "record() of fields, cleaned": lambda: runtime.record(fields),
            "Attempt.start()": start,
            "Attempt.start() and .end(), two records": call,
        },
        rounds,
        CALLS,
    )
    os.close(fd)
    with costspan.attribute("acme", session="s-1"):
        found |= best({"the same, within attribute()": call}, rounds, CALLS)
    one = found["one os.write of the same size"]
    targets = {"us": Target("us", 10), "x write": Target("x", 4)}
    return [
        Line(
            name,
            {"us": spent, "x write": spent / one},
            targets if name.startswith(("record", "Attempt.start()")) and "two" not in name else {},
        )
        for name, spent in found.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        costspan.configure(ledger=folder / "l.db", spool=folder / "s", background=False)
        lines = caller(folder, given.rounds)
    if given.json:
        print(as_json({_TITLE: lines}))
    else:
        show(_TITLE, lines)


if __name__ == "__main__":
    main()
