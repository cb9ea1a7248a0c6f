"""A desk to run commands at, on a ledger and a spool of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from costspan.cli import main

HOSTILE = "=cmd|' /C calc'!A0"
"""A tenant id that a spreadsheet would run."""


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Desk:
    """Runs commands on a ledger and a spool of its own, found through the environment."""

    def __init__(self, folder: Path, templates: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.ledger = folder / "ledger.db"
        self.spool = folder / "spool"
        self.folder = folder
        self._templates = templates
        self._capsys = capsys

    def use(self, books: str) -> None:
        """Take a copy of these books."""
        shutil.copy(self._templates / f"{books}.db", self.ledger)

    def run(self, *arguments: object) -> Ran:
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *self._capsys.readouterr())

    def ingest(self, lines: Iterable[Mapping[str, Any] | str], *options: object) -> Ran:
        path = self.folder / "lines.ndjson"
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("".join(f"{text}\n" for text in texts), "utf-8")
        return self.run("ingest", path, *options)
