"""The operator's own prices: a TOML file, first in precedence.

    [book]
    id = "contract"          # the name reports use; "contract" if left out
    currency = "USD"

    [aliases]                # another name = the model it prices as; "provider:name" limits it
    "gpt-4o-2024-08-06" = "gpt-4o"

    [[price]]
    model = "gpt-4o"         # required
    provider = "openai"      # left out: whoever bills
    tier = "batch"           # left out: the standard tier; region and endpoint likewise
    effective_from = 2026-01-01   # UTC, first moment in force; left out: always
    effective_to = 2027-01-01     # UTC, first moment no longer in force
    input = "2.50"           # USD per 1M tokens; per one for requests, web_searches, images, ...
    output = "10.00"

    [[price.above]]          # the whole request, once its prompt has more tokens than this
    tokens = 200000
    input = "5.00"

Amounts are strings or whole numbers. A TOML float is refused: 0.1 in a file is not 0.1 in memory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeGuard, cast

from costspan.core.prices.book import ContextTier, PriceBook, PriceError, PriceRow
from costspan.core.prices.names import canonical_provider
from costspan.core.prices.units import UNIT_COMPONENTS

_PRICE_KEYS = (
    *("model", "provider", "tier", "region", "endpoint"),
    *("effective_from", "effective_to", "above"),
)
_TOKEN_COMPONENTS = (
    *("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"),
    *("audio_input", "audio_output", "image_input", "image_output", "video_input", "video_output"),
)
_COMPONENTS = frozenset(_TOKEN_COMPONENTS) | UNIT_COMPONENTS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ContractError(ValueError):
    """What is wrong in a contract file, where, and what to write instead."""


def load(path: Path) -> PriceBook:
    """The price book written in the TOML file at `path`.

    Raises:
        ContractError: if the file cannot be read, or anything in it is not understood.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ContractError(f"{path}: not valid TOML: {error}") from error
    _only(document, ("book", "aliases", "price"), str(path))
    head = _table(document, "book", str(path))
    _only(head, ("id", "currency"), f"{path}: [book]")
    id = _text(head, "id", f"{path}: [book]") or "contract"
    currency = _text(head, "currency", f"{path}: [book]") or "USD"
    if currency != "USD":
        raise ContractError(f"{path}: [book] currency {currency!r}: only USD can be priced")
    listed = document.get("price")
    if not _is_tables(listed):
        raise ContractError(f"{path}: no prices: write each one under [[price]]")
    rows = [
        _row(id, price, f"{path}: [[price]] {number} ({price.get('model', 'no model')})")
        for number, price in enumerate(listed, 1)
    ]
    _refuse_overlaps(rows, str(path))
    aliases = _table(document, "aliases", str(path))
    return PriceBook(
        id=id, source=path.name, rows=tuple(rows), aliases=_aliases(aliases, rows, str(path))
    )


def _row(book: str, price: Mapping[str, Any], where: str) -> PriceRow:
    model = _text(price, "model", where)
    if not model:
        raise ContractError(f'{where}: says no model: add model = "..."')
    above = price.get("above", [])
    if above != [] and not _is_tables(above):
        raise ContractError(f"{where}: above: write each context tier under [[price.above]]")
    try:
        return PriceRow(
            book=book,
            model=model,
            provider=_text(price, "provider", where),
            tier=_text(price, "tier", where),
            region=_text(price, "region", where),
            endpoint=_text(price, "endpoint", where),
            effective_from=_moment(price, "effective_from", where),
            effective_to=_moment(price, "effective_to", where),
            rates=_rates(price, _PRICE_KEYS, where),
            above=tuple(_context_tier(tier, f"{where}: [[price.above]]") for tier in above),
        )
    except PriceError as error:
        raise ContractError(f"{where}: {error}") from error


def _context_tier(tier: Mapping[str, Any], where: str) -> ContextTier:
    tokens = tier.get("tokens")
    if type(tokens) is not int or tokens < 0:
        raise ContractError(f"{where}: tokens must be a whole number, such as tokens = 200000")
    return ContextTier(tokens, _rates(tier, ("tokens",), where))


def _rates(table: Mapping[str, Any], fixed: Sequence[str], where: str) -> dict[str, str]:
    rates: dict[str, str] = {}
    for name, amount in table.items():
        if name in fixed:
            continue
        # A component of the operator's own is welcome if its name says that it counts tokens.
        if name not in _COMPONENTS and not name.endswith("_tokens"):
            raise ContractError(_unknown(name, (*fixed, *_COMPONENTS), where))
        if isinstance(amount, float):
            raise ContractError(
                f"{where}: {name} = {amount!r} is a TOML float, which is not exact; "
                f'write it as a string: {name} = "{amount}"'
            )
        if isinstance(amount, bool) or not isinstance(amount, str | int):
            raise ContractError(
                f'{where}: {name}: an amount is a string such as "2.50", not {amount!r}'
            )
        rates[name] = str(amount)
    return rates


def _moment(price: Mapping[str, Any], name: str, where: str) -> int | None:
    value = price.get(name)
    if value is None:
        return None
    if not isinstance(value, date):
        raise ContractError(
            f"{where}: {name} = {value!r}: write a TOML date without quotes, {name} = 2026-01-31"
        )
    at = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=1) * 1000


def _refuse_overlaps(rows: Sequence[PriceRow], where: str) -> None:
    """Two rows of the same terms in force at once would make the price a matter of luck."""
    terms: dict[tuple[str | None, ...], list[PriceRow]] = {}
    for row in rows:
        provider = canonical_provider(row.provider)
        key = (provider, row.model, row.endpoint, row.region, row.tier)
        for other in terms.setdefault(key, []):
            if _starts_before_end(row, other) and _starts_before_end(other, row):
                tier = f" tier {row.tier}" if row.tier else ""
                raise ContractError(
                    f"{where}: two prices for {row.model}{tier} hold at the same time: "
                    "end one with effective_to where the other's effective_from begins"
                )
        terms[key].append(row)


def _starts_before_end(row: PriceRow, other: PriceRow) -> bool:
    start, end = row.effective_from, other.effective_to
    return start is None or end is None or start < end


def _aliases(aliases: Mapping[str, Any], rows: Iterable[PriceRow], where: str) -> dict[str, str]:
    models = {row.model for row in rows}
    read: dict[str, str] = {}
    for alias in aliases:
        model = _text(aliases, alias, f"{where}: [aliases]") or ""
        if model not in models:
            hint = _closest(model, models)
            raise ContractError(
                f"{where}: [aliases] {alias!r} points to {model!r}, which has no [[price]] here"
                f"{hint}: add its price, or remove the alias"
            )
        read[alias] = model
    return read


def _text(table: Mapping[str, Any], name: str, where: str) -> str | None:
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ContractError(f'{where}: {name} must be text: {name} = "..."')
    return value


def _table(document: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = document.get(name, {})
    if not _is_table(value):
        raise ContractError(f"{where}: {name} must be a table: write [{name}]")
    return value


def _is_table(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_tables(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    if not isinstance(value, list) or not value:
        return False
    return all(_is_table(member) for member in cast(list[object], value))


def _only(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise ContractError(_unknown(name, known, where))


def _unknown(name: str, known: Iterable[str], where: str) -> str:
    hint = _closest(name, known)
    return f"{where}: unknown key {name!r}{hint}; known are {', '.join(sorted(known))}"


def _closest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f", did you mean {close[0]!r}?" if close else ""
