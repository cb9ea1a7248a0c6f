"""Strict reading of TOML files about money: what is wrong, where, and what to write instead.

Amounts are strings or whole numbers. A TOML float is refused: 0.1 in a file is not 0.1 in memory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

from costspan.core.prices.content import Dated, PriceError
from costspan.core.prices.units import COMPONENTS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ContractError(PriceError):
    """What is wrong in a file of prices, where, and what to write instead."""


D = TypeVar("D", bound=Dated)


def document_of(path: Path) -> dict[str, Any]:
    """The TOML document at `path`.

    Raises:
        ContractError: if it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ContractError(f"{path}: not valid TOML: {error}") from error


@contextmanager
def at(where: str) -> Generator[None]:
    """Say where it is that something cannot be used, unless that was said already.

    Raises:
        ContractError: for a `PriceError` within.
    """
    try:
        yield
    except ContractError:
        raise
    except PriceError as error:
        raise ContractError(f"{where}: {error}") from error


def refuse_overlaps(
    entries: Iterable[D], terms: Callable[[D], Hashable], named: Callable[[D], str], where: str
) -> None:
    """Two entries of the same terms in force at once would make the amount a matter of luck.

    Args:
        entries: What the file says.
        terms: What an entry is limited to, but for time.
        named: What two such entries are, for people, after "two".
        where: The file.

    Raises:
        ContractError: if there are two.
    """
    alike: dict[Hashable, list[D]] = {}
    for entry in entries:
        others = alike.setdefault(terms(entry), [])
        if any(_overlap(entry, other) for other in others):
            raise ContractError(
                f"{where}: two {named(entry)} hold at the same time: end one with effective_to"
                " where the other's effective_from begins"
            )
        others.append(entry)


def _overlap(one: Dated, other: Dated) -> bool:
    """Whether there is a moment at which both hold."""
    return _starts_before_end(one, other) and _starts_before_end(other, one)


def _starts_before_end(one: Dated, other: Dated) -> bool:
    start, end = one.effective_from, other.effective_to
    return start is None or end is None or start < end


def rates_of(table: Mapping[str, Any], fixed: Sequence[str], where: str) -> dict[str, str]:
    """Every key but the `fixed` ones: a component and its rate."""
    rates: dict[str, str] = {}
    for name, amount in table.items():
        if name in fixed:
            continue
        # A component of the operator's own is welcome if its name says that it counts tokens.
        if name not in COMPONENTS and not name.endswith("_tokens"):
            raise ContractError(unknown_key(name, (*fixed, *COMPONENTS), where))
        rates[name] = amount_of(amount, name, where)
    return rates


def amount_of(amount: object, name: str, where: str) -> str:
    """An amount as it was written: a string or a whole number, never a float."""
    if isinstance(amount, float):
        raise ContractError(
            f"{where}: {name} = {amount!r} is a TOML float, which is not exact; "
            f'write it as a string: {name} = "{amount}"'
        )
    if isinstance(amount, bool) or not isinstance(amount, str | int):
        raise ContractError(
            f'{where}: {name}: an amount is a string such as "2.50", not {amount!r}'
        )
    return str(amount)


def moment_of(table: Mapping[str, Any], name: str, where: str) -> int | None:
    """A TOML date or datetime as ns UTC; None if it is not there."""
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, date):
        raise ContractError(
            f"{where}: {name} = {value!r}: write a TOML date without quotes, {name} = 2026-01-31"
        )
    at = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=1) * 1000


def text_of(table: Mapping[str, Any], name: str, where: str) -> str | None:
    """A text that is not empty; None if it is not there."""
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ContractError(f'{where}: {name} must be text: {name} = "..."')
    return value


def table_of(document: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """A table; an empty one if it is not there."""
    value = document.get(name, {})
    if not is_table(value):
        raise ContractError(f"{where}: {name} must be a table: write [{name}]")
    return value


def is_table(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether this is a table."""
    return isinstance(value, dict)


def is_tables(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether this is a list of tables, with one at least."""
    if not isinstance(value, list) or not value:
        return False
    return all(is_table(member) for member in cast(list[object], value))


def only(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse keys that nobody knows."""
    for name in table:
        if name not in known:
            raise ContractError(unknown_key(name, known, where))


def unknown_key(name: str, known: Iterable[str], where: str) -> str:
    """What to say of a key that nobody knows."""
    hint = closest(name, known)
    return f"{where}: unknown key {name!r}{hint}; known are {', '.join(sorted(known))}"


def closest(name: str, known: Iterable[str]) -> str:
    """A hint at what may have been meant."""
    close = get_close_matches(name, list(known), 1)
    return f", did you mean {close[0]!r}?" if close else ""
