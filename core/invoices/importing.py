"""Keeping documents: name them by what they say, keep what is new, say what differs.

All or nothing: a document is read to its end and checked before any of it is kept.
Accounts that it no longer names, and the document before it did, get an empty version.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import msgspec

from costspan.core.invoices.document import (
    RAW_BYTES_MAX,
    Document,
    InvoiceError,
    Notes,
    Order,
)
from costspan.core.invoices.invoice import CATEGORIES, Invoice, InvoiceLine
from costspan.core.invoices.standing import superseded
from costspan.core.invoices.store import InvoiceStore
from costspan.core.periods import is_period

_TELL_EVERY = 1_000


class Imported(NamedTuple):
    """One invoice of a document, as it is kept.

    Attributes:
        invoice: with its version.
        is_new: whether it was not kept before.
        lines: how many.
        amounts: category -> pico of its currency.
        previous: the version before.
        changes: what the new version says otherwise, and how many lines that is.
        notes: what was not plain sailing while it was read.
    """

    invoice: Invoice
    is_new: bool
    lines: int
    amounts: dict[str, int]
    previous: Invoice | None
    changes: Changes | None
    notes: list[str]


class Change(NamedTuple):
    """One line that two versions tell differently; None where one version has no such line."""

    before: InvoiceLine | None
    after: InvoiceLine | None


class Changes(NamedTuple):
    """How many lines differ, and the first of them."""

    lines: int
    shown: list[Change]


class _Key(NamedTuple):
    provider: str
    account: str
    period: str


class _Draft:
    """What the first reading finds of one invoice."""

    def __init__(self, currency: str = "") -> None:
        self.lines = 0
        self.currency = currency
        self.is_provisional = False
        self.amounts: Counter[str] = Counter()
        self.content = hashlib.sha256()

    def add(self, line: InvoiceLine) -> None:
        if line.category not in CATEGORIES:
            raise InvoiceError(f"line {self.lines}: no category {line.category!r}")
        if line.currency:
            if self.currency and self.currency != line.currency:
                raise InvoiceError(
                    f"{line.description or 'a line'} ({line.day}) is in {line.currency}, the lines"
                    f" before it are in {self.currency}: an invoice has one currency. Nothing was"
                    " kept; import the currencies apart"
                )
            self.currency = line.currency
        self.lines += 1
        self.is_provisional |= line.is_provisional
        self.amounts[line.category] += line.amount
        self.content.update(_encode(_fields(line)))
        self.content.update(b"\n")


def keep(
    store: InvoiceStore, document: Document, order: Order, *, by: str, at: int
) -> list[Imported]:
    """Keep a document: an invoice for each provider, account and period it speaks of.

    And an empty one for each account that it no longer names (see `standing`), last in the list.

    Args:
        store: where.
        document: what an importer brought.
        order: what was asked for; of a file its period picks the lines to keep.
        by: who imports.
        at: now, in ns UTC.

    Raises:
        InvoiceError: if it cannot be read or holds nothing; then nothing is kept.
        LedgerError: if the ledger cannot be written.
    """
    drafts, notes = _read(document, order)
    done = sum(draft.lines for draft in drafts.values())
    # First: if it ends in between, nothing counts twice, and the next import does the rest.
    emptied: list[Imported] = []
    for each in superseded(store, document, order, drafts, notes):
        key = _Key(each.provider, each.account, each.period)
        draft = _Draft(each.currency)
        emptied.append(_keep_one(store, document, order, key, draft, notes, by, at, done))
    kept: list[Imported] = []
    for key, draft in sorted(drafts.items()):
        kept.append(_keep_one(store, document, order, key, draft, notes, by, at, done))
        done += draft.lines
    return [*kept, *emptied]


def check(document: Document, order: Order) -> None:
    """Read a document to its end, and keep nothing.

    Raises:
        InvoiceError: as `keep` would.
    """
    _read(document, order)


def _read(document: Document, order: Order) -> tuple[dict[_Key, _Draft], Notes]:
    if len(document.raw) > RAW_BYTES_MAX:
        raise InvoiceError(
            f"the document has {len(document.raw):,} bytes, more than {RAW_BYTES_MAX:,}: import it"
            " in parts (of one account or one period)"
        )
    notes = Notes()
    drafts: dict[_Key, _Draft] = {}
    for done, billed in enumerate(document.lines(notes), 1):
        if done % _TELL_EVERY == 0:
            order.tell(done)
        if not is_period(billed.period):
            raise InvoiceError(f"{billed.line.description!r} is of no period (YYYY-MM)")
        if order.period is not None and billed.period != order.period:
            what = f"lines of other periods than {order.period} left out"
            notes.note(what, f"{billed.period} {billed.line.description}")
            continue
        line = billed.line
        key = _Key(line.provider, line.account, billed.period)
        drafts.setdefault(key, _Draft()).add(line)
    if not drafts:
        if document.period is None:
            raise InvoiceError(
                "the document holds no lines"
                + (f" of {order.period}" if order.period else "")
                + ": nothing was kept"
            )
        drafts[_Key(document.provider, document.account, document.period)] = _Draft()
    return drafts, notes


def _keep_one(
    store: InvoiceStore,
    document: Document,
    order: Order,
    key: _Key,
    draft: _Draft,
    notes: Notes,
    by: str,
    at: int,
    done: int,
) -> Imported:
    versions = [
        each
        for each in store.invoices(key.period)
        if (each.source, each.provider, each.account) == (document.source, *key[:2])
    ]
    known, id = _named(document, key, draft, versions)
    invoice = Invoice(
        id=id,
        source=document.source,
        provider=key.provider,
        account=key.account,
        period=key.period,
        version=0,
        imported_at=at,
        by=by,
        currency=draft.currency,
        is_provisional=draft.is_provisional,
    )
    lines = _lines(document, key, id, order.tell, done) if draft.lines else ()
    kept = store.keep(invoice, lines, document.raw)
    previous = versions[-1] if versions and not known else None
    return Imported(
        invoice=kept,
        is_new=not known,
        lines=draft.lines,
        amounts=dict(draft.amounts),
        previous=previous,
        changes=None if previous is None else changes(store, previous.id, kept.id),
        notes=notes.texts(),
    )


def _lines(
    document: Document, key: _Key, invoice: str, tell: Callable[[int], None], done: int
) -> Iterator[InvoiceLine]:
    number = 0
    for billed in document.lines(Notes()):
        if (billed.line.provider, billed.line.account, billed.period) == key:
            yield msgspec.structs.replace(billed.line, invoice=invoice, number=number)
            number += 1
            if number % _TELL_EVERY == 0:
                tell(done + number)


def _named(
    document: Document, key: _Key, draft: _Draft, versions: list[Invoice]
) -> tuple[bool, str]:
    """Whether the latest version says just this, and the id.

    The id is of the bytes and of what was read from them: other columns make another invoice. What
    a later version replaced comes back as a version of its own, whose id is also of the one before.
    """
    said = (document.source, *key, hashlib.sha256(document.raw).hexdigest(), draft.lines)

    def id_after(before: str) -> str:
        parts = (*said, draft.content.hexdigest(), before)
        return hashlib.sha256(_encode(parts)).hexdigest()

    ids = [each.id for each in versions]
    id = id_after("")
    if id not in ids:
        return False, id
    latest, before = ids[-1], ids[-2] if len(ids) > 1 else ""
    if latest in (id, id_after(before)):
        return True, latest
    return False, id_after(latest)


def _fields(line: InvoiceLine) -> list[Any]:
    return [getattr(line, name) for name in _CONTENT]


_CONTENT = tuple(n for n in InvoiceLine.__struct_fields__ if n not in ("invoice", "number"))
_encode = msgspec.json.Encoder().encode

_GRAIN = ("provider", "account", "project", "day", "model", "component", "tier", "category")
_CHANGES_SHOWN = 10


def changes(store: InvoiceStore, before: str, after: str) -> Changes:
    """What two invoices tell differently, whatever the order of their lines.

    Two readings of both: which contents differ in number, then the lines that have them.
    """
    balance: Counter[bytes] = Counter()
    for invoice, sign in ((before, -1), (after, 1)):
        for line in store.lines(invoice):
            balance[_digest(line)] += sign
    left = {digest: times for digest, times in balance.items() if times}
    gone = list(_differing(store, before, left, -1))
    come = list(_differing(store, after, left, 1))
    paired = _paired(gone, come)
    return Changes(len(paired), paired[:_CHANGES_SHOWN])


def _digest(line: InvoiceLine) -> bytes:
    return hashlib.blake2b(_encode(_fields(line)), digest_size=16).digest()


def _differing(
    store: InvoiceStore, invoice: str, left: dict[bytes, int], sign: int
) -> Iterator[InvoiceLine]:
    wanted = {digest: abs(times) for digest, times in left.items() if times * sign > 0}
    for line in store.lines(invoice):
        digest = _digest(line)
        if wanted.get(digest, 0) > 0:
            wanted[digest] -= 1
            yield line


def _paired(gone: list[InvoiceLine], come: list[InvoiceLine]) -> list[Change]:
    """Lines of the same grain and description side by side."""

    def grain(line: InvoiceLine) -> tuple[Any, ...]:
        return (*(getattr(line, name) for name in _GRAIN), line.description)

    before: dict[tuple[Any, ...], list[InvoiceLine]] = {}
    for line in gone:
        before.setdefault(grain(line), []).append(line)
    paired: list[Change] = []
    for line in come:
        same = before.get(grain(line))
        paired.append(Change(same.pop(0) if same else None, line))
    paired += [Change(line, None) for lines in before.values() for line in lines]
    return paired


def documents_of(order: Order) -> list[Document]:
    """What the first importer that knows the place brings.

    Raises:
        InvoiceError: if it cannot be fetched or read, or no importer knows the place.
    """
    from costspan.core import hooks

    for implementation in hooks.plugins().hook.import_invoice.get_hookimpls():
        try:
            found = cast("list[Document] | None", implementation.function(order=order))
        except (InvoiceError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a stranger's importer stops nobody else's
            hooks.failed(implementation.plugin_name, "import_invoice", error)
            continue
        if found is not None:
            return found
    raise InvoiceError(
        f"no importer knows {order.place!r}: it is neither a provider's API (openai, anthropic),"
        " nor a file of its costs or usage API (JSON), nor a FOCUS or AWS CUR file (CSV, CSV.gz);"
        " any other CSV file needs --columns FILE.toml"
    )
