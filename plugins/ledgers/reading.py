"""What readers ask of the books, whatever keeps them. Nothing here writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager

from costspan.core.decide import RuleSet
from costspan.core.join.identity import own_part
from costspan.core.journal.records import (
    POLICY_BOOKS,
    Close,
    Control,
    FreePostings,
    Policy,
    Restatement,
)
from costspan.core.prices import ChargeBook, PriceBook, PriceRow
from costspan.core.schema import Observation
from costspan.core.settle.entries import Posting, RollUp, Settled, Sum
from costspan.core.settle.keys import OPERATION, RESPONSE, SPAN, keys_of
from costspan.plugins.ledgers.control_rows import counted_records
from costspan.plugins.ledgers.journal_rows import EPOCH_BITS, observation_of, seq_of
from costspan.plugins.ledgers.look_ups import LookUps
from costspan.plugins.ledgers.packing import Packing
from costspan.plugins.ledgers.queries import Queries

_UNPREFIXED_CHARS_MIN = 8
# The second condition is that of the partial index.
_OF_STATUS = (
    "SELECT count(*) FROM events WHERE status = ? AND status NOT IN ('posted', 'not_money')"
)
_OF_KIND = "SELECT count(*) FROM problems WHERE kind = ?"
_COUNTS: dict[str, tuple[str, ...]] = {
    "observations": ("SELECT coalesce(sum(kept), 0) FROM writers",),
    "events": ("SELECT count(*) FROM events",),
    "postings": ("SELECT count(*) FROM postings",),
    "refused": (
        "SELECT coalesce(sum(times), 0) FROM counted"
        " WHERE kind = 'Refusals' OR (kind = 'Counts' AND substr(name, 1, 8) = 'refused:')",
    ),
    "conflict": ("SELECT count(*) FROM conflicts",),
    "swept": ("SELECT count(*) FROM events WHERE is_swept",),
    **{name: (_OF_STATUS, name) for name in ("open", "unpriced", "unmeasured")},
    **{
        name: (_OF_KIND, name)
        for name in ("unmatched", "unmatched_downstream", "identity_conflict", "archived")
    },
}


class Reading(ABC):
    """The look-ups of readers, over the connection that a ledger's `store` opened."""

    @property
    @abstractmethod
    def ask(self) -> Queries:
        """The connection to read from."""

    @property
    @abstractmethod
    def contents(self) -> Packing:
        """What unpacks events."""

    @abstractmethod
    def reading(self) -> LookUps:
        """The settler's look-ups, used only to read."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """One state of the books for everything that is read within."""

    # --- lines and events ----------------------------------------------------------------------

    def roll_ups(
        self,
        period: str | None = None,
        owner: str | None = None,
        posted_period: str | None = None,
    ) -> Iterator[RollUp]:
        """Every line that an event stands on or an amount is left on; see the protocol."""
        return self.reading().roll_ups(owner, period, posted_period)

    def added_up(self) -> Iterator[RollUp]:
        """What `roll_ups` should say: the same lines, added up from the postings themselves."""
        return self.reading().added_up()

    def sums(
        self,
        by: Sequence[str],
        *,
        period: str | None = None,
        owner: str | None = None,
        since_day: str | None = None,
        until_day: str | None = None,
    ) -> Iterator[tuple[tuple[str, ...], Sum]]:
        """The lines added up by some fields of `Line`; see the protocol."""
        only = {"owner": owner, "effective_period": period}
        return self.reading().sums(by, since_day, until_day, **only)

    def untold(self) -> Iterator[Settled]:
        """The events of which the lines do not tell all, in no order."""
        unpack = self.contents.unpack
        for condition in (
            "status IN ('open', 'unpriced', 'unmeasured', 'split')"
            " AND status NOT IN ('posted', 'not_money')",  # that of the partial index
            "is_swept AND status IN ('posted', 'not_money')",
        ):
            sql = f"SELECT content FROM events WHERE {condition}"  # noqa: S608
            for (content,) in self.ask.each(sql):
                yield unpack(content)

    def unknown(self, owner: str, period: str) -> int:
        """How many events of unknown cost would stand in this period for this owner."""
        sql = """
            SELECT count(*) FROM events WHERE status IN ('unpriced', 'unmeasured') AND about = ?
            AND status NOT IN ('posted', 'not_money')"""
        return self.ask.number(sql, f"{period} {owner}")

    def events(self, ids: Collection[str] | None = None) -> Iterator[Settled]:
        """Every event, or these; in order of id."""
        sql = f"SELECT content FROM {self.ask.events}"  # noqa: S608
        if ids is None:
            rows = self.ask.each(f"{sql} ORDER BY id")
        else:
            rows = self.ask.among(f"{sql} WHERE id IN ({{keys}}) ORDER BY id", sorted(ids))
        unpack = self.contents.unpack
        for (content,) in rows:
            yield unpack(content)

    def find_events(self, name: str, at_most: int = 10_000) -> list[str]:
        """The events that this names, by any id an event, request, trace or session has.

        Else by a response id.
        """
        found = set(self.named(name))
        for column in ("request_id", "trace_id", "session"):
            sql = f"SELECT id FROM {self.ask.events} WHERE {column} = ? ORDER BY n LIMIT ?"  # noqa: S608
            found.update(row[0] for row in self.ask.rows(sql, name, at_most))
        return sorted(found or self._of_response(name))[:at_most]

    def _of_response(self, name: str) -> set[str]:
        """The events that carry a response id, given whole or as the provider's own last part."""
        own = own_part(name)
        return {
            event_id
            for event_id, each in self.reading().indexed([RESPONSE + own]).items()
            if (said := each.event.facts.response_id) is not None
            and (said == name or own == name == own_part(said))
        }

    def search_events(self, name: str) -> list[str]:
        """By what no index has: every event is looked at. A short end could be any number's."""
        ending = f":{name}" if len(name) >= _UNPREFIXED_CHARS_MIN else None
        holds = self.ask.holds("content")
        sql = f"SELECT id, content FROM {self.ask.events} WHERE {holds} ORDER BY id"  # noqa: S608
        ends: list[str] = []
        callers: list[str] = []
        unpack = self.contents.unpack
        for event_id, content in self.ask.each(sql, name.encode("utf-8", "replace")):
            event = unpack(content).event
            if ending and any(each.endswith(ending) for each in (event_id, *event.operation_names)):
                ends.append(event_id)
            if event.facts.client_request_id == name:
                callers.append(event_id)
        return ends or callers

    def children(self, names: Collection[str]) -> set[str]:
        """The events whose parent is one of these names."""
        return self.reading().children(names)

    def named(self, name: str) -> list[str]:
        """The events that a parent reference of this name could mean."""
        reading = self.reading()
        candidates = reading.indexed([kind + name for kind in (OPERATION, SPAN)])
        for seen in reading.observations([name]):
            candidates.update(reading.settled([seen.attempt_id or name]))
            candidates.update(reading.indexed(keys_of(seen, ())))
        named = {id for id, each in candidates.items() if name in each.event.names}
        return sorted(named | reading.settled([name]).keys())

    # --- postings ------------------------------------------------------------------------------

    def postings(self, event_id: str) -> list[Posting]:
        """The entries of an event, oldest first."""
        return [each for _, each in self.reading().find_postings("event_id = ?", event_id)]

    def postings_after(self, number: int, at_most: int) -> list[tuple[int, Posting]]:
        """(number, posting) of those numbered higher than this, in order."""
        return self.reading().find_postings("postings.id > ?", number, at_most=at_most)

    def sealed(self, period: str, after: str | None = None) -> Iterator[tuple[int, Posting]]:
        """(number, posting) of those posted up to and with `period`, and after period `after`."""
        where = "posted_period <= ? AND posted_period > ?"
        return self.reading().each_posting(where, period, after or "")

    def given_away(self, closed_until: str, number: int) -> Iterator[tuple[int, Posting]]:
        """(number, posting) of every event that has an entry which others rely on, in order."""
        where = """event_id IN (
            SELECT event_id FROM postings JOIN lines ON lines.id = line
            WHERE posted_period <= ? OR postings.id <= ?)"""
        return self.reading().each_posting(where, closed_until, number)

    def cursors(self) -> dict[str, int]:
        """Sink -> number of the last posting that it has taken."""
        return self.reading().cursors()

    def free_postings(
        self, period: str | None = None, owner: str | None = None
    ) -> Iterator[FreePostings]:
        """The records of free postings in the order they came; see the protocol."""
        return self.reading().free_postings(period, owner)

    # --- the journal ---------------------------------------------------------------------------

    def closes(self) -> list[Close]:
        """Every close, the earliest period first."""
        return self.reading().closes()

    def problems(self, names: Collection[str] | None = None) -> list[tuple[str, str, str]]:
        """(kind, oid, event id) of what posts nothing, or was refused; all, or of these names."""
        sql = "SELECT kind, oid, event_id FROM problems"
        if names is None:
            found = set(self.ask.rows(sql))
        else:
            found = set(self.ask.among(f"{sql} WHERE oid IN ({{keys}})", names))
            found.update(
                self.ask.among(f"{sql} WHERE event_id IN ({{keys}}) AND event_id != ''", names)
            )
        return sorted((row[0], row[1], row[2]) for row in found)

    def counts(self, *names: str) -> dict[str, int]:
        """How many of everything, or of what is named; see the protocol."""
        return {name: self.ask.number(*_COUNTS[name]) for name in names or _COUNTS}

    def journal(self) -> Iterator[Observation]:
        """Every observation kept, in the order it came, losers of a conflict included."""
        for sql in (
            "SELECT id, payload FROM journal ORDER BY id",
            "SELECT observation, payload FROM conflicts ORDER BY observation, sha256",
        ):
            names = _Writers(self.reading())
            for number, payload in self.ask.each(sql):
                writer, epoch = names[number >> EPOCH_BITS]
                yield observation_of(writer, seq_of(epoch, number), payload)

    def controls(self) -> list[Control]:
        """Every control record kept, in the order it came; refusals by their greatest counts."""
        sql = "SELECT writer, kind, name, times FROM counted ORDER BY kind, writer, name"
        return [*self.reading().kept_controls(), *counted_records(self.ask.rows(sql))]

    def price_row(self, row_id: str) -> tuple[PriceRow, PriceBook] | None:
        """A row of a kept price book, and that book without its rows."""
        kept = self.reading()
        for sha256, _, _ in kept.price_book_versions():
            found = PriceBook.row_of_bytes(kept.price_book_bytes(sha256), row_id)
            if found is not None:
                return found
        return None

    def policy_parts(self) -> tuple[list[Policy], dict[str, RuleSet], dict[str, PriceBook]]:
        """Every policy, rule set and price book the books were decided by."""
        settlement = self.reading()
        policies, restated = settlement.policies(), self._restatements()
        rules = {policy.rules for policy in policies}
        rules.update(each.rules for each in restated if each.rules is not None)
        books = {sha for policy in policies for sha in policy.books}
        books.update(sha for each in restated for sha in each.books or ())
        books.discard(POLICY_BOOKS)
        return (
            policies,
            {sha: settlement.rule_set(sha) for sha in sorted(rules)},
            {sha: settlement.price_book(sha) for sha in sorted(books)},
        )

    def charge_books(self) -> dict[str, ChargeBook]:
        """Every charge book that a policy or a restatement names, by hash."""
        settlement = self.reading()
        named = {each.charges for each in settlement.policies()}
        named.update(each.charges for each in self._restatements())
        return {sha: settlement.charge_book(sha) for sha in named if sha is not None}

    def _restatements(self) -> list[Restatement]:
        kept = self.reading().kept_controls("Restatement")
        return [each for each in kept if isinstance(each, Restatement)]

    def writers(self) -> list[tuple[str, int, int]]:
        """(writer, greatest seq, records kept) of every writer."""
        sql = """
            SELECT name, max((epoch << 32) + greatest), sum(kept) FROM writers
            WHERE epoch >= 0 AND kept > 0 GROUP BY name ORDER BY name"""
        return [(name, int(last), int(kept)) for name, last, kept in self.ask.rows(sql)]


class _Writers(dict[int, tuple[str, int]]):
    """(name, epoch) of a writer: the journal is in their order, so the last few will do."""

    def __init__(self, kept: LookUps) -> None:
        self._of = kept

    def __missing__(self, writer: int) -> tuple[str, int]:
        self.clear()
        found = self[writer] = self._of.writer_names([writer])[writer]
        return found
