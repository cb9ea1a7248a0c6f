"""The tenant directory: names, parents and cost centres, joined when books are read.

No posting knows of it, so a reorganisation rewrites none. Its rows are dated by whole days of UTC,
half-open: `from` is the first day, `to` the day after the last.
"""

from __future__ import annotations

import csv
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from costspan.core.bounded import Invalid
from costspan.core.names import tenant_id
from costspan.core.periods import month_after

_TEXTS = ("name", "parent", "cost_centre", "currency", "billing_anchor", "time_zone")
FIELDS = ("tenant", *_TEXTS, "from", "to")
"""What a row can say; `tenant` it must. All are texts; dates are YYYY-MM-DD."""
_CURRENCY = re.compile(r"[A-Z]{3}")
_FIRST, _LAST = "0000-00-00", "9999-99-99"


class DirectoryError(ValueError):
    """A directory that cannot be used; the text says which row, and what is wrong with it."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a tenant from one day on and before another (YYYY-MM-DD; None: always).

    `currency`, `billing_anchor` and `time_zone` are labels: the books are in USD, and in months of
    UTC.
    """

    tenant: str
    name: str | None = None
    parent: str | None = None
    cost_centre: str | None = None
    currency: str | None = None
    billing_anchor: str | None = None
    time_zone: str | None = None
    since: str | None = None
    until: str | None = None

    def has(self, day: str) -> bool:
        """Whether it is in force on a day."""
        return (self.since or _FIRST) <= day < (self.until or _LAST)

    def plain(self) -> dict[str, str | None]:
        """As plain JSON values, named as in the file."""
        said = {name: getattr(self, name) for name in ("tenant", *_TEXTS)}
        return {**said, "from": self.since, "to": self.until}


class Directory:
    """Every entry, checked as a whole.

    Raises:
        DirectoryError: if two entries of a tenant are in force on one day; if a parent is not in
            the directory on a day on which it is one; if somebody is its own ancestor.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._of: dict[str, list[Entry]] = {}
        for each in entries:
            self._of.setdefault(each.tenant, []).append(each)
        for dated in self._of.values():
            dated.sort(key=lambda each: each.since or _FIRST)
            _refuse_overlaps(dated)
        # Who is whose parent only changes on the days on which something begins or ends.
        days = {_FIRST} | {
            day for dated in self._of.values() for each in dated for day in _bounds(each)
        }
        if any(each.parent for dated in self._of.values() for each in dated):
            for day in sorted(days):
                self._check_parents(day)

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def at(self, tenant: str, day: str) -> Entry | None:
        """What is said of a tenant on a day (YYYY-MM-DD); None if nothing is."""
        return next((each for each in self._of.get(tenant, ()) if each.has(day)), None)

    def in_period(self, tenant: str, period: str) -> list[Entry]:
        """Every entry in force on some day of a period (YYYY-MM), in order of time."""
        first, end = f"{period}-01", f"{month_after(period)}-01"
        return [
            each
            for each in self._of.get(tenant, ())
            if (each.since or _FIRST) < end and (each.until or _LAST) > first
        ]

    def children(self, tenant: str, day: str) -> list[str]:
        """Whose parent a tenant is on a day, and theirs, and so on; in order of name."""
        below: dict[str, list[str]] = {}
        for dated in self._of.values():
            for each in dated:
                if each.parent is not None and each.has(day):
                    below.setdefault(each.parent, []).append(each.tenant)
        found: set[str] = set()
        waiting = [tenant]
        while waiting:
            for child in below.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return sorted(found)

    def _check_parents(self, day: str) -> None:
        parent_of: dict[str, str] = {}
        for dated in self._of.values():
            for each in dated:
                if each.parent is not None and each.has(day):
                    parent_of[each.tenant] = each.parent
                    if self.at(each.parent, day) is None:
                        raise DirectoryError(_unknown_parent(each, day, self._of))
        sound: set[str] = set()
        for tenant in parent_of:
            path: dict[str, None] = {}
            at: str | None = tenant
            while at is not None and at not in sound:
                if at in path:
                    circle = list(path)[list(path).index(at) :]
                    raise DirectoryError(
                        f"on {_said(day)} these are their own ancestors: "
                        + " -> ".join([*circle, at])
                    )
                path[at] = None
                at = parent_of.get(at)
            sound.update(path)


def last_day(period: str) -> str:
    """The last day of a period: what is in force then is on its statement."""
    first = date.fromisoformat(f"{month_after(period)}-01")
    return (first - timedelta(days=1)).isoformat()


def load_directory(path: Path) -> Directory:
    """The directory in a TOML file (a list of `[[tenant]]`) or a CSV file with headings.

    Raises:
        DirectoryError: for a field nobody knows, a row that cannot be used, or rows that do not go
            together.
        OSError: if the file cannot be read.
    """
    try:
        text = path.read_text("utf-8-sig")
        rows = _of_csv(text) if path.suffix.lower() == ".csv" else _of_toml(text)
        return Directory([_entry(number, row) for number, row in enumerate(rows, 1)])
    except (DirectoryError, UnicodeDecodeError, csv.Error) as error:
        raise DirectoryError(f"{path}: {error}") from error


def _of_toml(text: str) -> list[dict[str, Any]]:
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DirectoryError(f"not a TOML file: {error}") from error
    for name in plain:
        if name != "tenant":
            raise DirectoryError(f"there is no table {name!r}: write [[tenant]] before each row")
    try:
        return msgspec.convert(plain.get("tenant", []), list[dict[str, Any]])
    except msgspec.ValidationError:
        text = "`tenant` is no list of rows: write [[tenant]] before each"
        raise DirectoryError(text) from None


def _of_csv(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(reader, 1):
        if None in row or None in row.values():
            raise DirectoryError(f"row {number} has not as many cells as there are headings")
        rows.append({name.strip(): cell.strip() for name, cell in row.items()})
    return rows


def _entry(number: int, row: Mapping[str, Any]) -> Entry:
    where = f"row {number}"
    for name in row:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(FIELDS)}"
            raise DirectoryError(f"{where}: there is no field {name!r}{meant}")
    said: dict[str, str | None] = {name: _text(where, name, row.get(name)) for name in _TEXTS}
    tenant = _tenant(where, "tenant", row.get("tenant"))
    if said["parent"] is not None:
        said["parent"] = _tenant(where, "parent", said["parent"])
    if said["currency"] is not None and not _CURRENCY.fullmatch(said["currency"]):
        raise DirectoryError(f"{where} ({tenant}): currency is three letters, such as EUR")
    since, until = _day(where, "from", row.get("from")), _day(where, "to", row.get("to"))
    if since is not None and until is not None and since >= until:
        raise DirectoryError(f"{where} ({tenant}): `from` must be before `to`, the day after")
    return Entry(tenant=tenant, since=since, until=until, **said)


def _text(where: str, name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DirectoryError(f"{where}: {name} is {value!r}; it is a text")
    return value


def _tenant(where: str, name: str, value: object) -> str:
    try:
        found = tenant_id(value)
    except Invalid:
        found = None
    if found is None or found != value:
        raise DirectoryError(f"{where}: {name} is {value!r}, which is no tenant's id")
    return found


def _day(where: str, name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if type(value) is date:
        return value.isoformat()
    try:
        if isinstance(value, str) and len(value) == len(_FIRST):
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise DirectoryError(f"{where}: {name} is {value!r}; write a day, such as 2026-11-01")


def _refuse_overlaps(dated: Sequence[Entry]) -> None:
    for one, other in pairwise(dated):
        if (one.until or _LAST) > (other.since or _FIRST):
            day = other.since or "the first day"
            raise DirectoryError(
                f"two rows of {one.tenant!r} are in force on {day}: end the earlier one with"
                " `to`, the day on which the next begins"
            )


def _bounds(each: Entry) -> tuple[str, ...]:
    """The days on which an entry changes who is in force; nothing begins on the day it ends at."""
    return tuple(day for day in (each.since, each.until) if day is not None)


def _unknown_parent(each: Entry, day: str, known: Mapping[str, object]) -> str:
    if each.parent in known:
        return f"{each.parent!r}, the parent of {each.tenant!r}, has no row for {_said(day)}"
    near = difflib.get_close_matches(str(each.parent), list(known), 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"{each.parent!r}, the parent of {each.tenant!r}, is in no row{meant}"


def _said(day: str) -> str:
    return "the first day" if day == _FIRST else day
