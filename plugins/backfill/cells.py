"""Cells of rows as they come: texts from CSV, values from JSON and from a database."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, cast
from urllib.parse import urlsplit

from costspan.core.backfill.claim import Rejected
from costspan.core.clean import Invalid, tenant_id, usd
from costspan.core.money import parse_usd

Row = Mapping[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING = frozenset({"", "null", "none", "NULL", "None", "\\N"})
_SECONDS_MAX = 10**11
_NUMBER = re.compile(r"-?[0-9]+(\.0*)?")
_DEFAULT_HOSTS = frozenset({"api.openai.com", "api.anthropic.com"})


def text(row: Row, *names: str) -> str | None:
    """The first of these cells that says something."""
    for name in names:
        value = row.get(name)
        if value is not None and not isinstance(value, (Mapping, list)):
            said = str(cast("object", value)).strip()
            if said not in _NOTHING:
                return said
    return None


def mapping(row: Row, name: str, flags: list[str]) -> Row:
    """A cell that holds a JSON object, as one or as its text; empty and flagged if it does not."""
    value = row.get(name)
    if isinstance(value, str):
        if value.strip() in _NOTHING:
            return {}
        try:
            value = json.loads(value)
            if isinstance(value, str):  # some exports quote the JSON once more
                value = json.loads(value)
        except (ValueError, RecursionError):
            value = False
    if value is None or value == []:
        return {}
    if isinstance(value, Mapping):
        return cast("Row", value)
    flags.append(f"unreadable:{name}")
    return {}


def inner(row: Row, name: str) -> Row:
    """A mapping within a mapping, empty if it is none."""
    value = row.get(name)
    return cast("Row", value) if isinstance(value, Mapping) else {}


def count(value: object) -> Any:
    """A count as a number; what is none stays as it is, for `clean` to refuse; None if absent."""
    if isinstance(value, str):
        said = value.strip()
        if said in _NOTHING:
            return None
        return int(said.partition(".")[0]) if _NUMBER.fullmatch(said) and len(said) < 20 else said
    return value


def moment(row: Row, *names: str) -> int | None:
    """Nanoseconds UTC of the first of these cells that is a moment; one without a zone is UTC."""
    for name in names:
        found = _moment(row.get(name))
        if found is not None:
            return found
    return None


def _moment(value: object) -> int | None:
    said = value
    if isinstance(said, str):
        try:
            said = datetime.fromisoformat(said.strip())
        except ValueError:
            said = value
    if isinstance(said, datetime):
        since = (said if said.tzinfo else said.replace(tzinfo=UTC)).astimezone(UTC) - _EPOCH
        found = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
        return found if found > 0 else None
    if isinstance(said, bool) or not isinstance(said, (int, float, str)):
        return None
    try:  # seconds or milliseconds since 1970
        seconds = Decimal(str(said).strip())
    except InvalidOperation:
        return None
    if not seconds.is_finite() or not 0 < seconds < _SECONDS_MAX * 1000:
        return None
    return int(seconds * (10**9 if seconds < _SECONDS_MAX else 10**6))


def money(value: object, flags: list[str], name: str) -> int | None:
    """An amount of USD in pico-USD; None if it is absent or cannot be one (flagged)."""
    if isinstance(value, str):
        value = value.strip()
    if value is None or (isinstance(value, str) and value in _NOTHING):
        return None
    try:
        return parse_usd(usd(value), rounding=True)
    except ValueError:
        flags.append(f"invalid:{name}")
        return None


def components(normalise: Callable[[Row], Mapping[str, Any] | None], reported: Row) -> Any:
    """Disjoint components; what cannot be computed with is kept as no usage, for `clean` to say."""
    try:
        found = normalise(reported)
    except (TypeError, ValueError, AttributeError, OverflowError):
        return {"input": -1}
    return found if found is None or any(found.values()) else None


def base_url(address: str | None) -> str:
    """A base URL as the live adapter writes it into response ids; empty for the provider's own."""
    try:
        parts = urlsplit(address or "")
    except ValueError:
        return ""
    if not parts.netloc or parts.hostname in _DEFAULT_HOSTS:
        return ""
    path = parts.path.rstrip("/")
    for endpoint in ("/chat/completions", "/responses", "/messages"):
        path = path.removesuffix(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"


def without_provider(model: str | None, provider: str | None) -> str | None:
    """A model's name without the provider a host routes by: `openai/gpt-4o` -> `gpt-4o`."""
    if model is None or provider is None:
        return model
    return model.removeprefix(f"{provider}/") or model


def owner(
    row: Row, tenant_from: Sequence[str], maps: Mapping[str, Row]
) -> tuple[str | None, str | None]:
    """The tenant that a row names, and why it names none.

    Args:
        row: The row.
        tenant_from: Where the tenant stands, best first: a column, or `MAP.KEY`.
        maps: The row's JSON columns by name.
    """
    for source in tenant_from:
        head, dot, key = source.partition(".")
        if not dot:
            said = text(row, source)
        else:
            held = maps.get(head, {})
            said = text(held, key) or _deep(held, key.split("."))
        if said is None:
            continue
        try:
            return tenant_id(said), None
        except Invalid:
            return said, f"{source} holds what cannot be a tenant"  # `clean` flags it
    return None, f"empty: {', '.join(tenant_from)}"


def _deep(held: Row, path: Iterable[str]) -> str | None:
    value: Any = held
    for key in path:
        value = cast("Row", value).get(key) if isinstance(value, Mapping) else None
    return text({"": value}, "")


def needed(value: str | None, name: str) -> str:
    """The value.

    Raises:
        Rejected: if the row does not have it.
    """
    if value is None:
        raise Rejected(f"no {name}: nothing names the row")
    return value
