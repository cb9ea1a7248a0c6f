"""LiteLLM's price map as a price book: the copy inside the installed package, never fetched.

LiteLLM itself is not imported (that takes seconds): the JSON file is found beside it and read
with exact decimals. It has no history, so its rows hold at any date and it stands last. What a
row cannot say is left out and listed by `skipped`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from costspan.core.hooks import hookimpl
from costspan.core.prices import (
    ContextTier,
    PriceBook,
    PriceError,
    PriceRow,
    canonical_provider,
    undated,
)
from costspan.core.prices.units import TOKENS_PER_RATE

BOOK_ID = "litellm"
_FILE = "model_prices_and_context_window_backup.json"

# Their cost key, without tier and context suffixes, to our component. USD per token.
_TOKEN_KEYS: Mapping[str, str] = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_image_token": "image_output",
    "input_cost_per_video_token": "video_input",
    "output_cost_per_video_token": "video_output",
    "cache_read_input_audio_token_cost": "cache_read_audio",
    "cache_read_input_image_token_cost": "cache_read_image",
    "cache_creation_input_audio_token_cost": "cache_write_5m_audio",
}
# Their suffix to our service tier.
_TIERS = {
    "batches": "batch",
    "flex": "flex",
    "priority": "priority",
    "balanced": "balanced",
    "ultrafast": "ultrafast",
}
_KEY = re.compile(
    rf"(?P<base>{'|'.join(sorted(_TOKEN_KEYS, key=len, reverse=True))})"
    rf"(?:_(?P<early>{'|'.join(_TIERS)}))?"
    r"(?:_above_(?P<above>[0-9]+)(?P<thousand>k?)_tokens)?"
    rf"(?:_(?P<late>{'|'.join(_TIERS)}))?"
)
# Unit prices by mode; where two keys of a mode differ, neither is taken.
_UNIT_KEYS: Mapping[str, tuple[str, ...]] = {
    "image_generation": ("output_cost_per_image",),
    "audio_transcription": ("input_cost_per_second", "output_cost_per_second"),
    "audio_speech": ("input_cost_per_character",),
    "ocr": ("ocr_cost_per_page",),
}
# The first key's component, and the power of ten from its unit to ours.
_UNIT_COMPONENT = {
    "output_cost_per_image": ("images", 0),
    "input_cost_per_second": ("duration_ms", -3),
    "input_cost_per_character": ("characters", 0),
    "ocr_cost_per_page": ("pages", 0),
}
# Keys that repeat another: reasoning tokens at the output rate, cache hits at the read rate.
_SAID_ELSEWHERE = frozenset({"output_cost_per_reasoning_token", "input_cost_per_token_cache_hit"})
# A provider's spellings in the map, beyond those `canonical_provider` knows.
_FOLDED = re.compile(r"^(vertex_ai|fireworks_ai)-.*$")
# xAI bills the higher context tier from the threshold on; the others above it.
_THRESHOLD_INCLUDED = frozenset({"xai"})

Skipped = dict[str, tuple[str, ...]]
_RowKey = tuple[str, str, str | None]
_Terms = tuple[str | None, int]


@hookimpl
def prices() -> list[PriceBook]:
    """The book, if LiteLLM is installed."""
    return [book()] if _path() is not None else []


def book() -> PriceBook:
    """The installed LiteLLM's map as a price book.

    Raises:
        PriceError: if LiteLLM, or the map inside it, is not there.
    """
    return _read()[0]


def skipped() -> Skipped:
    """What could not be expressed: the reason, and the names of the entries (sorted)."""
    return _read()[1]


def _path() -> Path | None:
    spec = find_spec("litellm")  # finds a top-level package without importing it
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder, _FILE)
        if path.is_file():
            return path
    return None


@cache
def _read() -> tuple[PriceBook, Skipped]:
    path = _path()
    if path is None:
        raise PriceError(f"no {_FILE} here: install litellm, or leave this book out")
    entries: dict[str, dict[str, Any]] = json.loads(path.read_bytes(), parse_float=Decimal)
    left_out: defaultdict[str, set[str]] = defaultdict(set)
    rows: dict[_RowKey, PriceRow] = {}
    defaults: dict[str, str] = {}
    # Names with the provider's prefix come last and win: they are the more explicit.
    for name, entry in sorted(entries.items(), key=lambda item: _is_prefixed(*item)):
        provider = _provider(entry)
        if provider is None:
            left_out["no provider"].add(name)
            continue
        model = name
        if _is_prefixed(name, entry):
            model = name.partition("/")[2]
        else:
            defaults[name] = provider
        for row in _rows(provider, model, name, entry, left_out):
            other = rows.get((provider, model, row.tier))
            if other is not None and other.id != row.id:
                left_out["an entry with the provider's prefix says otherwise"].add(model)
            rows[provider, model, row.tier] = row
    aliases = _fold_dated(rows)
    read = PriceBook(
        id=BOOK_ID,
        source=f"litellm/{_FILE}",
        source_version=version("litellm"),
        rows=tuple(rows.values()),
        aliases=aliases,
        defaults=defaults,
        providers={"google": "gemini"},
    )
    return read, {reason: tuple(sorted(names)) for reason, names in sorted(left_out.items())}


def _provider(entry: Mapping[str, Any]) -> str | None:
    provider = entry.get("litellm_provider")
    if not isinstance(provider, str) or " " in provider:  # " ": the entry that explains the format
        return None
    return canonical_provider(_FOLDED.sub(r"\1", provider))


def _is_prefixed(name: str, entry: Mapping[str, Any]) -> bool:
    prefix, slash, _ = name.partition("/")
    return bool(slash) and canonical_provider(prefix) == _provider(entry)


def _fold_dated(rows: dict[_RowKey, PriceRow]) -> dict[str, str]:
    """Take out the rows of dated names that say what the undated name's rows say; alias them.

    So that a model and the snapshot that served it find one and the same row.
    """
    tiers: defaultdict[tuple[str, str], dict[str | None, PriceRow]] = defaultdict(dict)
    for (provider, model, tier), row in rows.items():
        tiers[provider, model][tier] = row
    aliases: dict[str, str] = {}
    for (provider, dated), own in tiers.items():
        model = undated(dated)
        plain = tiers.get((provider, model), {})
        if model != dated and all(
            tier in plain and (row.rates, row.above) == (plain[tier].rates, plain[tier].above)
            for tier, row in own.items()
        ):
            aliases[f"{provider}:{dated}"] = model
            for tier in own:
                del rows[provider, dated, tier]
    return aliases


def _rows(
    provider: str,
    model: str,
    name: str,
    entry: Mapping[str, Any],
    left_out: defaultdict[str, set[str]],
) -> Iterator[PriceRow]:
    problem = _inexpressible(entry)
    if problem:
        left_out[problem].add(name)
        return
    rates = _token_rates(entry, provider in _THRESHOLD_INCLUDED)
    for start, costs in _ranges(entry.get("tiered_pricing")):
        rates[None, start].update(costs)
    units = _unit_rates(entry)
    for key in _unread(entry):
        left_out[f"cost key {key} is not read"].add(name)
    if "provider_specific_entry" in entry:
        left_out["multipliers of one provider are not applied"].add(name)
    for tier in sorted({tier for tier, _ in rates} | {None}, key=lambda tier: tier or ""):
        base = {**units, **rates.get((tier, 0), {})}
        if not base or (tier and not rates.get((tier, 0))):
            left_out["no price" if tier is None else f"no base price for tier {tier}"].add(name)
            continue
        above = [(start, more) for (of, start), more in rates.items() if of == tier and start]
        for some in (base, *(more for _, more in above)):
            if "input" in some:  # image tokens without a price of their own are input tokens
                some.setdefault("image_input", some["input"])
        yield PriceRow(
            book=BOOK_ID,
            model=model,
            provider=provider,
            tier=tier,
            rates=base,
            above=tuple(ContextTier(start, more) for start, more in above),
        )


def _inexpressible(entry: Mapping[str, Any]) -> str | None:
    if "off_peak_pricing" in entry:
        return "price depends on the time of day"
    tiers = entry.get("tiered_pricing") or ()
    for costs in (entry, *tiers):
        output = costs.get("output_cost_per_token")
        if costs.get("output_cost_per_reasoning_token", output) != output:
            return "reasoning tokens have a price of their own"
    if any(len(tier.get("range", ())) != 2 for tier in tiers):
        return "tiers by something else than the prompt's length"
    return None


def _token_rates(
    entry: Mapping[str, Any], threshold_included: bool
) -> defaultdict[_Terms, dict[str, str]]:
    """(service tier, prompt tokens above which) -> component -> USD per 1M tokens."""
    rates: defaultdict[_Terms, dict[str, str]] = defaultdict(dict)
    for key, cost in entry.items():
        found = _KEY.fullmatch(key)
        if found is None or not _is_amount(cost):
            continue
        start = int(found["above"] or 0) * (1000 if found["thousand"] else 1)
        if start and threshold_included:
            start -= 1
        tier = found["early"] or found["late"]
        terms = (_TIERS[tier] if tier else None, start)
        rates[terms][_TOKEN_KEYS[found["base"]]] = _per_million(cost)
    return rates


def _ranges(tiers: Any) -> Iterator[tuple[int, dict[str, str]]]:
    """Context tiers written as a list; the whole request is billed at the one it falls in."""
    for tier in tiers or ():
        costs = {
            component: _per_million(tier[key])
            for key, component in _TOKEN_KEYS.items()
            if _is_amount(tier.get(key))
        }
        yield int(tier["range"][0]), costs


def _unit_rates(entry: Mapping[str, Any]) -> dict[str, str]:
    """Rates per one unit, where the entry leaves no doubt what they are for."""
    rates: dict[str, str] = {}
    by_context_size: dict[str, Any] = entry.get("search_context_cost_per_query") or {}
    searches = set(by_context_size.values())
    if len(searches) == 1 and all(map(_is_amount, searches)):
        rates["web_searches"] = str(searches.pop())
    if entry.get("input_cost_per_token") or entry.get("output_cost_per_token"):
        return rates  # a unit price beside token prices may be the same charge said again
    keys = _UNIT_KEYS.get(entry.get("mode") or "", ())
    costs = {entry[key] for key in keys if _is_amount(entry.get(key)) and entry[key]}
    if len(costs) == 1:
        component, exponent = _UNIT_COMPONENT[keys[0]]
        rates[component] = str(Decimal(costs.pop()).scaleb(exponent))
    return rates


def _unread(entry: Mapping[str, Any]) -> Iterator[str]:
    """The cost keys of an entry that no rate was read from."""
    by_token = entry.get("input_cost_per_token") or entry.get("output_cost_per_token")
    read = () if by_token else _UNIT_KEYS.get(entry.get("mode") or "", ())
    for key, cost in entry.items():
        if ("cost_per_" not in key and "_cost" not in key) or key in read:
            continue
        if _is_amount(cost) and cost and not _KEY.fullmatch(key) and key not in _SAID_ELSEWHERE:
            yield key


def _is_amount(cost: object) -> bool:
    return isinstance(cost, int | Decimal) and not isinstance(cost, bool) and cost >= 0


def _per_million(cost: int | Decimal) -> str:
    return str(cost * TOKENS_PER_RATE)
