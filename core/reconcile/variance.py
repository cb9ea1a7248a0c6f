"""A difference between the books and an invoice, and the causes that explain it."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from costspan.core.money import format_usd

HOME: Final = "USD"
"""The currency of the books."""

EVIDENCE_MAX: Final = 10
"""So many events, or lines of an invoice, are named; the rest are counted."""

KINDS: Final = {
    "duplicate_line": "the invoice has the same line more than once",
    "cents_for_dollars": "the invoice has cents where dollars are meant, or the reverse",
    "price": "the same tokens at another price",
    "unpriced": "calls that no price row could price",
    "day_edge": "counted on the neighbouring day",
    "missing_day": "the invoice has nothing at all for this day",
    "unrecorded_day": "nothing at all was recorded on this day",
    "outside_path": "spent outside the instrumented path",
    "open": "calls that started and have not ended yet",
    "swept": "calls that nobody saw end",
    "unknown_stream": "calls cut short before their usage was known",
    "missing_usage": "answers that came without usage",
    "silent_retry": "requests that no instrument saw",
    "batch": "a batch is one call in the books and many requests on the invoice",
    "estimated": "usage that was estimated, not reported",
    "provisional": "the provider says that these numbers may still change",
    "not_billed": "the books have what the invoice lacks",
    "rounding": "rounding of the provider's amounts",
    "currency": "billed in another currency than the books are kept in",
    "tax": "a tax: no usage",
    "credit": "a credit: no usage",
    "discount": "a discount: no usage",
    "purchase": "a purchase: no usage",
    "adjustment": "an adjustment by the provider: no usage",
}
"""Kind of cause -> what it is, in plain words."""

APART: Final = ("tax", "credit", "discount", "purchase", "adjustment")
"""What an invoice says beside usage: compared apart, never as usage."""


class Grain(NamedTuple):
    """What is compared: `day` "" is the whole period, `account` "" all of the provider's.

    `item` is what is billed by no model (a component, or a line's description); else "".
    """

    provider: str
    account: str
    day: str
    model: str
    item: str


class Amounts(NamedTuple):
    """Requests, tokens, and money in pico of the currency; signed."""

    requests: int = 0
    tokens: int = 0
    money: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """The sum."""
        return Amounts(
            self.requests + other.requests, self.tokens + other.tokens, self.money + other.money
        )

    def minus(self, other: Amounts) -> Amounts:
        """The difference."""
        return self.plus(Amounts(-other.requests, -other.tokens, -other.money))


class Evidence(msgspec.Struct, frozen=True):
    """What a cause was found from: a few of them by name, and how many there are.

    `events` are ids; `lines` are `INVOICE:NUMBER`; `rows` are ids of price rows.
    """

    events: tuple[str, ...] = ()
    events_count: int = 0
    lines: tuple[str, ...] = ()
    lines_count: int = 0
    rows: tuple[str, ...] = ()


class Cause(msgspec.Struct, frozen=True):
    """What explains a part of a variance: `amount` is of the variance's own unit, signed.

    `is_shared` says that several causes stand behind one amount which the data cannot tell apart:
    it is then split by their numbers of calls.
    """

    kind: str
    amount: int
    text: str
    evidence: Evidence = Evidence()
    is_shared: bool = False


class Variance(msgspec.Struct, frozen=True, kw_only=True):
    """A difference: invoice - ledger, in requests, tokens or pico of the currency.

    `what` is requests, tokens, money, currency, or one of `APART`. Causes and `unexplained` add up
    to the difference exactly. `id` names the variance and its amounts: other amounts, another id.
    """

    id: str
    period: str
    grain: Grain
    what: str
    ledger: int
    invoice: int
    currency: str
    is_over_threshold: bool
    causes: tuple[Cause, ...]

    @property
    def difference(self) -> int:
        """Invoice - ledger."""
        return self.invoice - self.ledger

    @property
    def explained(self) -> int:
        """What the causes add up to."""
        return sum(cause.amount for cause in self.causes)

    @property
    def unexplained(self) -> int:
        """What no cause explains."""
        return self.difference - self.explained

    @property
    def is_money(self) -> bool:
        """Whether its amounts are pico of the currency."""
        return self.what not in ("requests", "tokens")

    @property
    def share(self) -> Decimal | None:
        """The difference as a share of the invoice, to six places; None of an invoice of 0."""
        if not self.invoice:
            return None
        exact = Decimal(self.difference) / Decimal(abs(self.invoice))
        return exact.quantize(Decimal("0.000001"))

    def said(self, amount: int) -> str:
        """An amount of this variance as text: a decimal of the currency, or a number."""
        return format_usd(amount) if self.is_money else str(amount)


def variance_id(period: str, grain: Grain, what: str, ledger: int, invoice: int) -> str:
    """The name of a variance: the period, then a digest of what it says."""
    parts = [period, *grain, what, ledger, invoice]
    return f"{period}.{hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]}"


def plain(variance: Variance) -> dict[str, object]:
    """A variance as plain JSON values; amounts of money are decimal strings with 12 places."""
    said = variance.said if variance.is_money else int
    share = variance.share
    return {
        "id": variance.id,
        "period": variance.period,
        **variance.grain._asdict(),
        "what": variance.what,
        "currency": variance.currency if variance.is_money else None,
        "ledger": said(variance.ledger),
        "invoice": said(variance.invoice),
        "difference": said(variance.difference),
        "unexplained": said(variance.unexplained),
        "share_of_invoice": None if share is None else str(share),
        "over_threshold": variance.is_over_threshold,
        "causes": [
            {
                "kind": cause.kind,
                "amount": said(cause.amount),
                "text": cause.text,
                "shared": cause.is_shared,
                **msgspec.to_builtins(cause.evidence),
            }
            for cause in variance.causes
        ],
    }
