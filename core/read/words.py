"""How facts are written for people: amounts, times, counts, names. Nothing is rounded away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

from costspan.core.money import format_usd, round_ratio

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACES_MIN = 2


def trimmed(usd: str) -> str:
    """An amount without the zeros at its end that say nothing, two places at least."""
    whole, point, places = usd.partition(".")
    kept = max(len(places.rstrip("0")), min(_PLACES_MIN, len(places)))
    return f"{whole}{point}{places[:kept]}"


def dollars(pico: int) -> str:
    """An amount of pico-USD, exact, with its unit."""
    return f"{trimmed(format_usd(pico))} USD"


def rate(exact: Fraction) -> str:
    """A rate of pico-USD per token as USD per 1M tokens, to 12 places."""
    return trimmed(format_usd(round_ratio(exact.numerator * 10**6, exact.denominator)))


def percent(part: int, whole: int) -> str:
    """A part of a whole, to a hundredth of a percent."""
    if not whole:
        return "no part"
    hundredths = round_ratio(abs(part) * 10_000, abs(whole))
    sign = "-" if (part < 0) != (whole < 0) and part else ""
    if part and not hundredths:
        return "less than 0.01 %"
    return f"{sign}{hundredths // 100}.{hundredths % 100:02} %"


def when(at_ns: int | None) -> str:
    """A time, to the second, UTC."""
    if at_ns is None:
        return "no time"
    try:
        return (_EPOCH + timedelta(seconds=at_ns // 10**9)).strftime("%Y-%m-%d %H:%M:%SZ")
    except OverflowError:
        return f"{at_ns} ns"


def day(at_ns: int) -> str:
    """The day of a time, UTC."""
    return when(at_ns).partition(" ")[0]


def span(start_ns: int | None, end_ns: int | None) -> str:
    """A half-open span of time, in days."""
    if start_ns is None and end_ns is None:
        return "at any date"
    if start_ns is None:
        return f"before {day(end_ns or 0)}"
    return f"from {day(start_ns)}" + ("" if end_ns is None else f" until {day(end_ns)}")


def lasted(ns: int) -> str:
    """A duration in milliseconds or seconds."""
    ms = max(0, ns) // 10**6
    return f"{ms} ms" if ms < 10_000 else f"{ms // 1000} s"


def counted(many: int, noun: str) -> str:
    """A number and what it counts."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def listed(parts: list[str]) -> str:
    """Several things as one part of a sentence."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def shown(text: str) -> str:
    """`text` with whatever does not print written as an escape: no terminal or reader obeys it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def day_ns(text: str) -> int:
    """The beginning of a day (YYYY-MM-DD, UTC) in ns."""
    return (
        (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH)
        // timedelta(microseconds=1)
        * 1000
    )
