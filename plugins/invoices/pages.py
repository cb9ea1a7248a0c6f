"""JSON pages of a cost or usage API: as they were fetched, or from a file of one or more pages.

A file may hold one page, a list of pages, or pages one after another. Numbers are read as they
are written (a fraction as a Decimal): a float would not be what the provider billed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from costspan.core.invoices.document import InvoiceError, Order, day_of

_WHITE = " \t\r\n"


class Result(NamedTuple):
    """One result of a bucket: where it stands, its UTC day and moment, and its fields."""

    where: str
    day: str
    start: str
    fields: Mapping[str, Any]


def results(raw: bytes) -> Iterator[Result]:
    """Every result of every bucket.

    Raises:
        InvoiceError: if the bytes are no JSON pages, are torn, or a page that should follow is
            missing.
    """
    more, number = False, 0
    for number, page in enumerate(_pages(raw), 1):
        where = f"page {number}"
        data = page.get("data")
        if not isinstance(data, list):
            raise InvoiceError(f"{where} has no list of buckets in 'data'")
        more = page.get("has_more") is True
        for at, bucket in enumerate(cast(list[object], data), 1):
            yield from _bucket(bucket, f"{where}, bucket {at}")
    if more:
        raise InvoiceError(
            f"page {number} says that more pages follow (has_more), and none does: save them all in"
            " one file, one after another"
        )


def groups(raw: bytes, is_term: Callable[[str, object], bool]) -> Iterator[Result]:
    """Every result; a bucket tells a group once: twice is a page that was saved twice.

    Args:
        raw: The pages.
        is_term: Whether a field, by name and value, says of which group a result is.

    Raises:
        InvoiceError: as `results`, and if a group of a bucket is told again.
    """
    seen: set[tuple[object, ...]] = set()
    for result in results(raw):
        terms = sorted(
            (name, str(each)) for name, each in result.fields.items() if is_term(name, each)
        )
        key = (result.start, *terms)
        if key in seen:
            raise InvoiceError(
                f"{result.where} tells again what came before it: is a page there twice?"
            )
        seen.add(key)
        yield result


def text(fields: Mapping[str, Any], name: str, where: str) -> str | None:
    """A text field; null, empty and absent are None.

    Raises:
        InvoiceError: if it is no text, or text that cannot be kept.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvoiceError(f"{where}: {name} is {str(value)[:40]!r}: it must be a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvoiceError(f"{where}: {name} holds half a character: {error.reason}") from error
    return value


def claims(order: Order, provider: str, mark: bytes) -> bool:
    """Whether a file looks like pages of this provider: JSON, with a mark of its own in it."""
    raw = order.raw
    if raw is None or order.columns is not None or order.provider not in (None, provider):
        return False
    return raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") and mark in raw


def month_span(order: Order) -> tuple[datetime, datetime]:
    """The moments between which to ask an API: the month, but no day that has not begun.

    Raises:
        InvoiceError: if no period was named, or it has not begun.
    """
    if order.period is None:
        raise InvoiceError(f"say which month to ask {order.place} for: --period YYYY-MM")
    year, month = int(order.period[:4]), int(order.period[5:])
    try:
        start = datetime(year, month, 1, tzinfo=UTC)
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    except ValueError as error:
        raise InvoiceError(f"--period {order.period}: {error}") from error
    tomorrow = datetime.fromisoformat(day_of(order.at + 86_400 * 10**9)).replace(tzinfo=UTC)
    if start >= tomorrow:
        raise InvoiceError(f"--period {order.period} has not begun")
    return start, min(end, tomorrow)


def _bucket(bucket: object, where: str) -> Iterator[Result]:
    if not isinstance(bucket, dict):
        raise InvoiceError(f"{where} is no object")
    fields = cast(dict[str, Any], bucket)
    start = _start(fields, where)
    listed = fields.get("results")
    if not isinstance(listed, list):
        raise InvoiceError(f"{where} has no list of 'results'")
    for at, result in enumerate(cast(list[object], listed), 1):
        place = f"{where} ({start[:10]}), result {at}"
        if not isinstance(result, dict):
            raise InvoiceError(f"{place} is no object")
        yield Result(place, start[:10], start, cast(dict[str, Any], result))


def _start(bucket: Mapping[str, Any], where: str) -> str:
    """OpenAI writes Unix seconds, Anthropic an RFC 3339 text; both are UTC."""
    seconds, written = bucket.get("start_time"), bucket.get("starting_at")
    if type(seconds) is int and 0 <= seconds < 253_402_300_800:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    if isinstance(written, str):
        try:
            moment = datetime.fromisoformat(written)
        except ValueError:
            pass
        else:
            if moment.tzinfo is not None:
                return moment.astimezone(UTC).isoformat()
    raise InvoiceError(f"{where} says no start_time (Unix seconds) or starting_at (RFC 3339, UTC)")


def _pages(raw: bytes) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder(
        parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_object
    )
    try:
        whole, at = raw.decode("utf-8-sig"), 0
        while at < len(whole):
            if whole[at] in _WHITE:
                at += 1
                continue
            content, at = decoder.raw_decode(whole, at)
            listed = cast(list[object], content) if isinstance(content, list) else [content]
            for page in listed:
                if not isinstance(page, dict):
                    raise InvoiceError("a page is no JSON object")
                yield cast(dict[str, Any], page)
    except RecursionError:
        raise InvoiceError("not JSON that can be read: nested too deep") from None
    except json.JSONDecodeError as error:
        raise InvoiceError(f"not whole JSON (torn?): {error}") from error
    except UnicodeDecodeError as error:
        raise InvoiceError(f"not UTF-8: {error}") from error
    except InvoiceError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise InvoiceError(f"a number that cannot be read: {error}") from error


def _no_number(constant: str) -> object:
    raise InvoiceError(f"{constant} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvoiceError(f"an object says {twice[:80]!r} twice: which is meant?")
    return found
