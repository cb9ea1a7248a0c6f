"""What an importer is asked for, and what it brings: a document and the lines read from it.

An importer is a plugin with the hook `import_invoice(order)`. It looks at the order, returns None
if the place is not its own, and else the documents found there. Reading a document is lazy: its
lines are read twice, once to check and name it, once to keep it, so that memory stays flat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from costspan.core.invoices.invoice import Category, InvoiceLine
from costspan.core.money import PICO, MoneyError, decimal_of, round_half_even

RAW_BYTES_MAX: Final = 512 * 2**20
"""A larger document is refused: bytes are kept whole, and a ledger's blob has a limit."""
QUANTITY_MAX: Final = 2**63 - 1
_DAY_NS: Final = 86_400 * 10**9


class InvoiceError(ValueError):
    """A document that cannot be read or kept; the text names the line and what would be right."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be imported.

    Attributes:
        place: the name of a provider's API (``openai``, ``anthropic``), or the name of a file.
        raw: the bytes of the file; None if `place` is an API.
        at: the moment (ns UTC) that the document speaks of: now, or when the file was written.
        provider: whose bill it is, where the document does not say; also picks among importers.
        period: YYYY-MM; of a file the only period to keep, of an API the one to ask for.
        account: whose account, where the document does not say; it is of this one account then.
        replaces: the document is all that its source has of the provider and the month: what was
            kept of other accounts counts no longer.
        services: keep the lines of these services alone; none means all.
        base_url: another root of the API.
        key_env: the environment variable that holds the API's key, if not its usual one.
        columns: the text of a TOML file that says what the columns of a CSV file mean.
        rounding: round amounts finer than a pico half-even instead of refusing them.
        tell: called with how many pages or lines have been read.
    """

    place: str
    raw: bytes | None
    at: int
    provider: str | None = None
    period: str | None = None
    account: str = ""
    replaces: bool = False
    services: tuple[str, ...] = ()
    base_url: str | None = None
    key_env: str | None = None
    columns: str | None = None
    rounding: bool = False
    tell: Callable[[int], None] = lambda done: None

    def is_provisional(self, day: str) -> bool:
        """Whether a UTC day may still change: the last two days before `at`, and later ones."""
        return day >= day_of(self.at - _DAY_NS)


class Notes:
    """What was not plain sailing while a document was read: how often, and first where."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def note(self, what: str, where: str) -> None:
        """Count one."""
        self.times[what] += 1
        self.first.setdefault(what, where)

    def texts(self) -> list[str]:
        """A sentence a kind, in the order they were met."""
        return [
            f"{what}: {times:,} {'time' if times == 1 else 'times'}, first at {self.first[what]}"
            for what, times in self.times.items()
        ]


class Billed(NamedTuple):
    """A line as an importer reads it: its period, and the line without invoice and number."""

    period: str
    line: InvoiceLine


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document as it came.

    Attributes:
        source: its kind (see `Invoice.source`).
        provider: who bills, where the lines are of one provider (a document without lines).
        account: likewise.
        raw: the bytes.
        lines: reads the lines anew each time it is called; raises InvoiceError.
        period: the period that was asked for: a document without lines is kept for it.
    """

    source: str
    provider: str
    account: str
    raw: bytes
    lines: Callable[[Notes], Iterator[Billed]]
    period: str | None = None


def amount_of(
    amount: object, where: str, notes: Notes, *, per: int = PICO, rounding: bool = False
) -> int:
    """`amount` (a decimal string, an int or a Decimal) in pico; `per` is pico per unit of it.

    Raises:
        InvoiceError: if it is no decimal, or finer than a pico and not to be rounded.
    """
    try:
        exact = Fraction(decimal_of(amount)) * per
    except MoneyError as error:
        raise InvoiceError(f"{where}: {error}") from error
    if exact.denominator == 1:
        return exact.numerator
    if not rounding:
        raise InvoiceError(
            f"{where}: the amount {amount} is finer than a pico (12 decimal places); nothing was"
            " kept. --round rounds such amounts half-even to the pico, and says how many"
        )
    notes.note("amounts finer than a pico, rounded half-even", where)
    return round_half_even(exact)


def quantity_of(count: object, where: str) -> int:
    """A count of tokens or requests.

    Raises:
        InvoiceError: if it is no whole number from 0 to 2**63 - 1.
    """
    if type(count) is not int or not 0 <= count <= QUANTITY_MAX:
        shown = str(count)[:40]
        raise InvoiceError(f"{where} is {shown!r}: it must be a whole number that is not negative")
    return count


def currency_of(code: object, where: str) -> str:
    """A currency's ISO code in capitals.

    Raises:
        InvoiceError: if it is not three letters.
    """
    text = code.strip().upper() if isinstance(code, str) else ""
    if len(text) != 3 or not (text.isascii() and text.isalpha()):
        raise InvoiceError(f"{where}: the currency is {code!r}; it must be an ISO code such as USD")
    return text


@lru_cache(64)
def day_of(at_ns: int) -> str:
    """The UTC day of a moment, YYYY-MM-DD.

    Raises:
        InvoiceError: if it is no moment of the years 1970 to 9999.
    """
    try:
        return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%d")
    except (OverflowError, OSError, ValueError) as error:
        raise InvoiceError(f"{at_ns} ns is no moment of a calendar") from error


_WORDS: Final[Mapping[str, Category]] = {
    "tax": "tax",
    "vat": "tax",
    "gst": "tax",
    "sales tax": "tax",
    "credit": "credit",
    "credits": "credit",
    "credit grant": "credit",
    "promotional credit": "credit",
    "refund": "credit",
    "discount": "discount",
    "adjustment": "adjustment",
    "purchase": "purchase",
}


def category_of(words: str, amount: int) -> Category:
    """What kind of charge a line item or cost type names; taxes and credits are never usage.

    A usage line of a negative amount gives money back: it is a credit.
    """
    said = _WORDS.get(words.replace("_", " ").strip().lower())
    if said is not None:
        return said
    return "credit" if amount < 0 else "usage"
