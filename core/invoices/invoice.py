"""An invoice as it was imported, its lines, and what people said of a variance.

An invoice is a document of a provider (or a page set of its cost or usage API) for one month. It
is never edited: the same source, account and period read again is the next version, and the latest
version counts. Money is an integer of pico of its currency; what was not said is None, or the
empty text where the field is part of a grain (`day`, `component`, `account`).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

CATEGORIES: Final = ("usage", "tax", "credit", "discount", "purchase", "adjustment")
Category = Literal["usage", "tax", "credit", "discount", "purchase", "adjustment"]
STATES: Final = ("open", "accepted", "disputed", "resolved")
State = Literal["open", "accepted", "disputed", "resolved"]


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a provider's document for one period.

    `id` is a sha256 (hex) over the raw bytes and what was read from them, so that the same bytes
    read another way are another invoice. `source` is the document's kind (``openai`` and
    ``anthropic`` speak of money, ``openai-usage`` and ``anthropic-usage`` of requests and tokens;
    ``focus``, ``csv``), `account` whose bill it is ("" if there is only one), `period` YYYY-MM,
    `version` 1, 2, … of the same source, provider, account and period, `imported_at` ns UTC,
    `currency` an ISO code ("" if the document says no money). `is_provisional` says that some of
    its days may still change.
    """

    id: str
    source: str
    provider: str
    account: str
    period: str
    version: int
    imported_at: int
    by: str
    currency: str
    is_provisional: bool


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a document.

    `number` counts from 0. `day` is a UTC day, "" if only the period is known. `project` is the
    provider's project, workspace or sub-account. `component` is one of our names (``input``,
    ``cache_read``, ``output``, …; the classes are disjoint), "" if the line is not by component.
    `quantity` counts `unit` (tokens), `requests` calls. `amount` is in pico of `currency`, signed;
    it is 0 on a line that speaks of quantities alone (`currency` is "" there).
    """

    invoice: str
    number: int
    provider: str
    account: str
    project: str | None
    day: str
    model: str | None
    component: str
    tier: str | None
    category: Category
    requests: int | None
    quantity: int | None
    unit: str | None
    amount: int
    currency: str
    description: str
    is_provisional: bool


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody decided about a variance, named by its id; the latest review counts.

    `at` is in ns UTC.
    """

    variance: str
    state: State
    by: str
    note: str
    at: int
