"""What lies in spool folders, as a drain would read it."""

from __future__ import annotations

from pathlib import Path

from costspan.core.journal import records, spool
from costspan.core.recorder import Ack, Held, Refused
from costspan.core.schema import Observation

Answer = Ack | Held | Refused


def read(*folders: Path, torn: bool = False) -> list[records.Record]:
    """Every record in folders that no live writer holds; torn parts are only there if said."""
    found: list[records.Record] = []
    for folder in folders:
        for path in spool.segments(folder):
            with spool.claim(path) as content:
                assert content is not None, f"{path} is held"
                assert torn or content.quarantined == ()
                writer = None
                for payload in content.payloads:
                    record = records.decode(payload, writer)
                    writer = record.writer if isinstance(record, records.Opened) else writer
                    found.append(record)
    return found


def observations(*folders: Path, torn: bool = False) -> list[Observation]:
    return [each for each in read(*folders, torn=torn) if isinstance(each, Observation)]


def oids(*folders: Path, torn: bool = False) -> list[str | None]:
    return [each.oid for each in observations(*folders, torn=torn)]


def counts(*folders: Path) -> dict[str, int]:
    """All counters as the process told them last; none if it never did."""
    told = [each for each in read(*folders, torn=True) if isinstance(each, records.Counts)]
    return max(told, key=lambda each: sum(each.counts.values())).counts if told else {}


def acked(answers: list[Answer]) -> list[str]:
    return [each.oid for each in answers if isinstance(each, Ack)]


def names_and_numbers(*folders: Path) -> dict[str, dict[int, str | None]]:
    """For each writer its numbers and what was recorded; the same twice is there once.

    Fails where two records have one name.
    """
    found: dict[str, dict[int, str | None]] = {}
    for each in observations(*folders, torn=True):
        assert each.writer is not None
        assert each.seq is not None
        known = found.setdefault(each.writer, {}).setdefault(each.seq, each.attempt_id)
        assert known == each.attempt_id, f"two records are {each.oid}"
    return found


def check_no_gap(*folders: Path) -> None:
    for numbers in names_and_numbers(*folders).values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
