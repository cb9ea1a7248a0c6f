"""Cells of rows as they come: texts from CSV, values from JSON and from a database."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from costspan.core.backfill.claim import Rejected
from costspan.core.clean import Invalid, tenant_id, usd
from costspan.core.money import parse_usd

Row = Mapping[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING = frozenset({"", "null", "none", "NULL", "None", "\\N"})
_SECONDS_MAX = 10**11
_NS_MAX = 2**63
_ROW_ID_CHARS_MAX = 180
"""With its source before it, an id is well below what the books keep of one word for word."""
_NUMBER = re.compile(r"-?[0-9]+(\.0*)?")
_NUMBERED = re.compile(r":[0-9]+$")
"""After a colon, digits would read as the number of a writer's record."""
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


def words(row: Row, name: str) -> tuple[str, ...]:
    """A cell that holds a JSON list of words, as one or as its text; empty if it does not."""
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    held = cast("list[object]", value) if isinstance(value, list) else []
    return tuple(word for word in held if isinstance(word, str))


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
    if isinstance(value, datetime):
        found: int | None = _of_date(value)
    elif isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    else:
        # A number first: ISO's short form would take milliseconds for a day of the 18th century.
        found = _of_number(str(value).strip())
        if found is None and isinstance(value, str):
            try:
                found = _of_date(datetime.fromisoformat(value.strip()))
            except ValueError:
                return None
    return found if found is not None and 0 < found < _NS_MAX else None


def _of_date(moment: datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH  # no date is made of it: one with a zone may be of no calendar in UTC
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def _of_number(said: str) -> int | None:
    """Seconds or milliseconds since 1970."""
    try:
        seconds = Decimal(said)
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


class Owner(NamedTuple):
    """The tenant that a row names, where it stood, and why it names none."""

    tenant: str | None
    place: str | None
    why_none: str | None


def owner(
    row: Row, tenant_from: Sequence[str], maps: Mapping[str, Row], others: Iterable[str] = ()
) -> Owner:
    """Whose the row is.

    Args:
        row: The row.
        tenant_from: Where the tenant stands, best first: a column, or `MAP.KEY`.
        maps: The row's JSON columns by name.
        others: The columns that could have been named too: those that say something are told.
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
            return Owner(tenant_id(said), source, None)
        except Invalid:
            return Owner(said, None, f"{source} holds what cannot be a tenant")  # `clean` flags it
    filled = [name for name in others if name not in tenant_from and text(row, name)]
    hint = f" (filled: {', '.join(filled)})" if filled else ""
    return Owner(None, None, f"empty: {', '.join(tenant_from)}{hint}")


def _deep(held: Row, path: Iterable[str]) -> str | None:
    value: Any = held
    for key in path:
        value = cast("Row", value).get(key) if isinstance(value, Mapping) else None
    return text({"": value}, "")


def short(row_id: str) -> str:
    """A row's id, or the digest of one that is too long for a name or ends like a number's."""
    if len(row_id) <= _ROW_ID_CHARS_MAX and row_id.isprintable() and not _NUMBERED.search(row_id):
        return row_id
    return "sha256:" + hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).hexdigest()


def own_name(source: str, row_id: str) -> str:
    """The name of a row's observation: its source and its id."""
    return f"{source}/{short(row_id)}"


def needed(value: str | None, name: str) -> str:
    """The value.

    Raises:
        Rejected: if the row does not have it.
    """
    if value is None:
        raise Rejected(f"no {name}: nothing names the row")
    return value
