"""What it costs to import costspan and its adapters, and to run its command.

    python benchmarks/imports.py [--rounds N] [--json]

Processes of their own, taking turns: the least processor time of some rounds, in ms, and as a ratio
to `python -c pass`. An adapter loads its host: its own part, costspan's core within it, is what
comes on top of the host alone.
A host that is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec

from turns import Line, Target, as_json, show

ROUNDS = 7
IMPORT = Target("ms", 60)
NOTHING = "python -c pass"

ALONE = {
    NOTHING: ["-c", "pass"],
    "import costspan": ["-c", "import costspan"],
    "import costspan.adapter": ["-c", "import costspan.adapter"],
    "costspan --version": ["-m", "costspan", "--version"],
    "costspan --help": ["-m", "costspan", "--help"],
    "costspan report --help": ["-m", "costspan", "report", "--help"],
}
"""What needs no host."""

HOSTS = {
    "costspan.adapters.asgi": "starlette",
    "costspan.adapters.langchain": "langchain_core.language_models.chat_models",
    "costspan.adapters.litellm": "litellm",
    "costspan.adapters.otel": "opentelemetry.sdk.trace",
    "costspan.adapters.requests": "requests",
    "costspan.adapters.httpx": "httpx",
}
"""Adapter -> what it is for."""


def milliseconds(arguments: list[str]) -> float:
    """Processor time of a process of its own."""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed")
    return (used.ru_utime + used.ru_stime) * 1000


def measure(subjects: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """Subject -> ms, the least of the rounds."""
    found = dict.fromkeys(subjects, float("inf"))
    for _ in range(rounds):
        for name, arguments in subjects.items():
            found[name] = min(found[name], milliseconds(arguments))
    return found


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    alone = measure(ALONE, asked.rounds)
    lines = [
        Line(
            name,
            {"ms": ms, "beyond pass": ms - alone[NOTHING], "ratio": ms / alone[NOTHING]},
            {"beyond pass": IMPORT} if name == "import costspan" else {},
        )
        for name, ms in alone.items()
    ]
    tables = {"import and command": lines, "adapters": []}
    for adapter, host in HOSTS.items():
        if find_spec(host.partition(".")[0]) is None:
            continue
        of_host = f"import {host}"
        found = measure(
            {of_host: ["-c", of_host], adapter: ["-c", f"import {adapter}"]},
            max(2, asked.rounds // 2),
        )
        values = {
            "ms": found[adapter],
            "host alone": found[of_host],
            "own part": found[adapter] - found[of_host],
            "ratio": found[adapter] / found[of_host],
        }
        tables["adapters"].append(Line(adapter, values, {}))
    if asked.json:
        print(as_json(tables))
        return
    for title, found_lines in tables.items():
        show(title, found_lines)


if __name__ == "__main__":
    main()
