"""The `genai-prices` package as a price book: many providers, with the history of their prices.

Read from the installed package; nothing is fetched. What its data says in a way a row cannot
(prices by the hour of the day, minimum durations, prices by route) is left out and listed by
`skipped`, so that such a request is unpriced rather than wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from costspan.core.hooks import hookimpl
from costspan.core.prices import ContextTier, PriceBook, PriceRow

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

BOOK_ID = "genai-prices"

# Their price key to (our component, how many of our units their price is for).
_COMPONENTS: Mapping[str, tuple[str, int]] = {
    "input_mtok": ("input", 1),
    "output_mtok": ("output", 1),
    "cache_read_mtok": ("cache_read", 1),
    "cache_write_mtok": ("cache_write_5m", 1),
    "cache_write_1h_mtok": ("cache_write_1h", 1),
    "input_audio_mtok": ("audio_input", 1),
    "output_audio_mtok": ("audio_output", 1),
    "input_image_mtok": ("image_input", 1),
    "output_image_mtok": ("image_output", 1),
    "input_video_mtok": ("video_input", 1),
    "output_video_mtok": ("video_output", 1),
    "cache_audio_read_mtok": ("cache_read_audio", 1),
    "cache_image_read_mtok": ("cache_read_image", 1),
    "requests_kcount": ("requests", 1000),
    "web_searches_kcount": ("web_searches", 1000),
    "storage_searches_kcount": ("file_searches", 1000),
    "input_document_kpages": ("pages", 1000),
    "input_annotated_document_kpages": ("annotated_pages", 1000),
    "input_mchars": ("characters", 10**6),
    "audio_hours": ("duration_ms", 3_600_000),
    "input_audio_hours": ("duration_ms", 3_600_000),
}
# Groq bills at least ten seconds of sound; a rate per unit cannot say so.
_MINIMUM_DURATION = {("groq", "whisper-large-v3"), ("groq", "whisper-large-v3-turbo")}
_TIER_KEYS = ("processing", "service_tier", "speed")

Skipped = dict[str, tuple[str, ...]]


class _Window(NamedTuple):
    """Prices in force on [start, end), ns UTC."""

    start: int | None
    end: int | None
    prices: Mapping[str, Any]


@hookimpl
def prices() -> list[PriceBook]:
    """The book, if genai-prices is installed."""
    return [book()] if find_spec("genai_prices") is not None else []


def book() -> PriceBook:
    """The installed genai-prices as a price book.

    Raises:
        ImportError: if the package is not installed.
    """
    return _read()[0]


def skipped() -> Skipped:
    """What could not be expressed: the reason, and the `provider/model` it concerns (sorted)."""
    return _read()[1]


@cache
def _read() -> tuple[PriceBook, Skipped]:
    from genai_prices.data import providers

    left_out: defaultdict[str, set[str]] = defaultdict(set)
    rows = [
        row
        for provider in providers
        for model in provider.models
        for row in _rows(provider.id, model, left_out)
    ]
    aliases, names = _aliases(providers, {(row.provider, row.model) for row in rows})
    read = PriceBook(
        id=BOOK_ID,
        source="genai-prices",
        source_version=version("genai-prices"),
        rows=tuple(rows),
        aliases=aliases,
        defaults=_defaults(providers, names),
        providers={"gemini": "google", "vertex_ai": "google"},
    )
    return read, {reason: tuple(sorted(names)) for reason, names in sorted(left_out.items())}


def _rows(
    provider: str, model: ModelInfo, left_out: defaultdict[str, set[str]]
) -> Iterator[PriceRow]:
    name = f"{provider}/{model.id}"
    windows = _windows(model)
    if windows is None:
        left_out["price depends on the time of day"].add(name)
        return
    if (provider, model.id) in _MINIMUM_DURATION:
        left_out["minimum duration per request"].add(name)
        return
    for tier, window in _by_tier(model, windows, name, left_out):
        if "output_reasoning_mtok" in window.prices:
            left_out["reasoning tokens have a price of their own"].add(name)
            continue
        base, above = _rates(window.prices, name, left_out)
        if not base:
            left_out["no price"].add(name)
            continue
        yield PriceRow(
            book=BOOK_ID,
            model=model.id,
            provider=provider,
            tier=tier,
            effective_from=window.start,
            effective_to=window.end,
            rates=base,
            above=above,
        )


def _windows(model: ModelInfo) -> list[_Window] | None:
    """The standard prices over time, oldest first; None if the hour of the day decides."""
    if not isinstance(model.prices, list):
        return [_Window(None, None, _values(model.prices))]
    # Theirs: the last price whose constraint holds wins, and without any, the first one does.
    starts: dict[int | None, ModelPrice] = {None: model.prices[0].prices}
    for conditional in model.prices:
        if conditional.constraint is None:
            starts = {None: conditional.prices}
            continue
        start = getattr(conditional.constraint, "start_date", None)
        if start is None:
            return None
        at_ns = _midnight(start)
        starts = {at: prices for at, prices in starts.items() if at is None or at < at_ns}
        starts[at_ns] = conditional.prices
    ends = [*starts, None][1:]
    return [
        _Window(start, end, _values(prices))
        for (start, prices), end in zip(starts.items(), ends, strict=True)
    ]


def _by_tier(
    model: ModelInfo,
    windows: Sequence[_Window],
    name: str,
    left_out: defaultdict[str, set[str]],
) -> Iterator[tuple[str | None, _Window]]:
    """The standard windows, then those of each service tier, which overlays them in part."""
    for window in windows:
        yield None, window
    tiers: defaultdict[str, list[_Window]] = defaultdict(list)
    for variant in model.price_variants or ():
        tier = _tier(variant.when)
        begin = getattr(variant.constraint, "start_date", None)
        if tier is None or (variant.constraint is not None and begin is None):
            left_out[f"price depends on {', '.join(sorted(variant.when))}"].add(name)
            continue
        start = None if begin is None else _midnight(begin)
        tiers[tier].append(_Window(start, None, _values(variant.prices)))
    for tier, overrides in tiers.items():
        # Theirs: of the variants in force, the first one that has a key sets it.
        for window in _cut(windows, [override.start for override in overrides]):
            override: dict[str, Any] = {}
            for variant_prices in overrides:
                if _began(variant_prices.start, window.start):
                    override = {**variant_prices.prices, **override}
            if override:  # "service_tier=default" changes nothing: it is the base row
                yield tier, window._replace(prices={**window.prices, **override})


def _cut(windows: Sequence[_Window], starts: Sequence[int | None]) -> Iterator[_Window]:
    """The windows, cut at each of `starts`."""
    for window in windows:
        inside = {
            at
            for at in starts
            if at is not None
            and not _began(at, window.start)
            and (window.end is None or at < window.end)
        }
        bounds = [window.start, *sorted(inside), window.end]
        for start, end in pairwise(bounds):
            yield _Window(start, end, window.prices)


def _began(start: int | None, at_ns: int | None) -> bool:
    return start is None or (at_ns is not None and start <= at_ns)


def _tier(when: Mapping[str, str]) -> str | None:
    if len(when) != 1:
        return None
    ((key, value),) = when.items()
    return value if key in _TIER_KEYS else None


def _rates(
    values: Mapping[str, Any], name: str, left_out: defaultdict[str, set[str]]
) -> tuple[dict[str, str], tuple[ContextTier, ...]]:
    base: dict[str, str] = {}
    tiers: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for key, price in values.items():
        known = _COMPONENTS.get(key)
        if known is None:
            left_out[f"price key {key} has no component"].add(name)
            continue
        component, units = known
        rate = _per_unit(getattr(price, "base", price), units)
        if rate is None or base.setdefault(component, rate) != rate:
            left_out[f"no exact rate for {component}"].add(name)
            continue
        for tier in getattr(price, "tiers", ()):
            tiers[tier.start][component] = str(tier.price)
    # Image tokens without a price of their own are input tokens: the package's own arithmetic.
    if "input" in base and "image_input" not in base:
        base["image_input"] = base["input"]
        for rates in tiers.values():
            if "input" in rates:
                rates["image_input"] = rates["input"]
    return base, tuple(ContextTier(start, rates) for start, rates in sorted(tiers.items()))


def _per_unit(price: Decimal, units: int) -> str | None:
    """`price` / `units` as an exact decimal string; None if no decimal says it."""
    if units == 1:
        return str(price)
    exact = Fraction(price) / units
    rate = Decimal(price) / units
    return format(rate, "f") if Fraction(rate) == exact else None


def _values(prices: ModelPrice) -> dict[str, Any]:
    return {key: value for key, value in vars(prices).items() if value is not None}


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9


def _aliases(
    providers: Sequence[Provider], priced: set[tuple[str | None, str]]
) -> tuple[dict[str, str], dict[str, set[str]]]:
    """`provider:name` -> model for the names its match clauses spell out, and who has each name.

    Clauses also match by prefix and pattern; of a prefix only the literal itself is taken, and any
    name only if the package reads it as this very model.
    """
    aliases: dict[str, str] = {}
    names: defaultdict[str, set[str]] = defaultdict(set)
    for provider in providers:
        for model in provider.models:
            if (provider.id, model.id) not in priced:
                continue
            names[model.id].add(provider.id)
            for name in set(_literals(model.match)) - {model.id}:
                if provider.find_model(name) is model and (provider.id, name) not in priced:
                    aliases[f"{provider.id}:{name}"] = model.id
                    names[name].add(provider.id)
    return aliases, names


def _literals(clause: Any) -> Iterator[str]:
    for kind in ("equals", "starts_with"):
        literal = getattr(clause, kind, None)
        if literal:
            yield literal
    for inner in getattr(clause, "or_", ()):
        yield from _literals(inner)


def _defaults(providers: Sequence[Provider], names: Mapping[str, set[str]]) -> dict[str, str]:
    """Whose model a name is when no provider is given, wherever the package says so.

    Said also of names that only another provider has: a reseller's price is not to be assumed.
    """
    defaults: dict[str, str] = {}
    for name in names:
        for provider in providers:
            if provider.model_match is not None and provider.model_match.is_match(name):
                defaults[name] = provider.id
                break
    return defaults
