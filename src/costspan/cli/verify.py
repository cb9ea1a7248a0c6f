"""`costspan verify`: prove that the books are what was sealed, and follow from the journal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from costspan.cli.close import checkpoint_plain, signing_key
from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.moments import period as period_of
from costspan.cli.moments import when
from costspan.cli.printing import Column, Page, amount, counted, print_json, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.checkpoints import PROVES, Key, hash_of, read_key
from costspan.core.journal.records import Close
from costspan.core.money import format_usd
from costspan.core.proofs import Proof, Proved, check, prove, read_proofs
from costspan.core.verify import Checkpoint, Problem, verify

_SHOWN_MAX = 100
_SAYS = {
    "good": "signed",
    "bad": "WRONG SIGNATURE",
    "unsigned": "unsigned",
    "unknown key": "signed, not checked",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    parser.add_argument(
        "--period", metavar="YYYY-MM", help="only the seal of this month, and the chain"
    )
    parser.add_argument(
        "--key",
        "--public-key",
        dest="keys",
        metavar="FILE",
        action="append",
        type=Path,
        default=[],
        help="every checkpoint must be signed by this key: an Ed25519 key as PEM, or a secret;"
        " several where keys changed (that of the setting checkpoint_key counts, too)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        type=Path,
        help="a checkpoint that was kept elsewhere (close --json): it must be among those here,"
        " and speaks for itself and for those before it",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--prove",
        metavar="NAME",
        help="print a proof of a sealed posting (number or event) as JSON",
    )
    parser.add_argument(
        "--tenant", metavar="TENANT", help="with --prove: what is this tenant's of it"
    )
    what.add_argument(
        "--proof", metavar="FILE", type=Path, help="check such a proof; needs no ledger"
    )
    what.add_argument(
        "--print-public-key", action="store_true", help="the public half of the key, as PEM"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Verify; 1 if anything is wrong."""
    settings = reader_settings_of(options)
    keys = [read_key(path) for path in options.keys]
    own = signing_key(settings, None)
    keys += [] if own is None else [own]
    if options.print_public_key:
        if not keys:
            raise UsageError("name a key: --key FILE, or the setting checkpoint_key")
        print(keys[0].public_pem(), end="")
        return OK
    trusted = None if options.checkpoint is None else _checkpoint(options.checkpoint)
    if options.proof is not None:
        return _check_proofs(options, keys, trusted)
    month = None if options.period is None else period_of(options.period)
    with open_books(settings) as books:
        if options.prove is not None:
            to_stderr(f"ledger: {books.url}")
            print_json(msgspec.to_builtins(prove(books.ledger, options.prove, options.tenant)))
            return OK
        many = books.ledger.counts("events")["events"]
        found = _Found(many)
        with progress("verifying", "events", many) as tell:

            def told(what: str, done: int) -> None:
                if what == "events":
                    tell(done)

            found.is_private = not books.ledger.persons.is_readable()
            for each in verify(books.ledger, keys, period=month, trusted=trusted, tell=told):
                found.add(each)
        if options.json:
            to_stderr(f"ledger: {books.url}")
            print_json(found.plain(books.url))
        else:
            found.print(books.url, month)
    return BAD if found.problems else OK


class _Found:
    """What a verification came to."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.is_private = False
        self.many = 0
        self.problems: list[Problem] = []
        self.checkpoints: list[Checkpoint] = []

    def add(self, each: Problem | Checkpoint) -> None:
        """Keep what is shown: damage may be everywhere."""
        if isinstance(each, Checkpoint):
            self.checkpoints.append(each)
            return
        self.many += 1
        if len(self.problems) < _SHOWN_MAX:
            self.problems.append(each)

    def plain(self, url: str) -> dict[str, Any]:
        """As JSON."""
        return {
            "ledger": url,
            "verified": not self.many,
            "events": self.events,
            "problems": self.many,
            "not_looked_at": ["persons"] if self.is_private else [],
            "found": [msgspec.to_builtins(each) for each in self.problems],
            "checkpoints": [
                {
                    **checkpoint_plain(each.close),
                    "sha256": hash_of(each.close),
                    "is_sealed": each.is_sealed,
                    "is_linked": each.is_linked,
                    "verdict": each.signature,
                    "proves": _proves(each),
                }
                for each in self.checkpoints
            ],
        }

    def print(self, url: str, month: str | None) -> None:
        """As a page."""
        page = Page()
        page.line(f"ledger {url}", "dim")
        if self.checkpoints:
            self._table(page)
        else:
            page.line("no period is closed: nothing is sealed yet", "dim")
        for each in self.problems:
            page.line(f"{each.check}: {each.what}", "red")
        if self.many > len(self.problems):
            page.line(f"and {self.many - len(self.problems):,} more", "red")
        if self.is_private:
            page.line("not looked at: persons, who is behind a pseudonym; this role may not", "dim")
        if self.many:
            page.line(
                f"NOT VERIFIED: {counted(self.many, 'problem')}. Do not bill from these books; keep"
                " the file, and compare with a backup or with costspan rebuild",
                "bold red",
            )
        elif month is not None:
            page.line(f"verified: the seal of {month} holds", "green")
        else:
            page.line(
                f"verified: {counted(self.events, 'event')} follow from what was recorded, sums"
                " from postings, and every seal holds",
                "green",
            )

    def _table(self, page: Page) -> None:
        columns = [Column("closed"), Column("postings", True), Column("root"), Column("signature"),
                   Column("by"), Column("at"), Column("forced over")]  # fmt: skip
        rows = [
            [each.close.period, f"{each.close.postings:,}", each.close.root[:16],
             _SAYS[each.signature], each.close.by, when(each.close.recorded_at),
             "; ".join(each.close.forced)]
            for each in self.checkpoints
        ]  # fmt: skip
        page.table(columns, rows)
        for text in dict.fromkeys(_proves(each) for each in self.checkpoints):
            page.line(f"  {text}", "dim")


def _proves(each: Checkpoint) -> str:
    """What a checkpoint proves, in words."""
    close = each.close
    if each.signature == "unsigned":
        return f"unsigned: {PROVES[None]}"
    said = f"{close.algorithm}, key {close.key_id}"
    if each.signature == "unknown key":
        return f"{said}: not checked, this key was not given (--key FILE)"
    if each.signature == "bad":
        return f"{said}: proves nothing, the signature is wrong"
    return f"{said}: {PROVES.get(close.algorithm, 'an algorithm that nobody knows')}"


def _checkpoint(path: Path) -> Close:
    """A checkpoint from what `close --json` or `verify --json` printed."""
    try:
        plain: Any = msgspec.json.decode(path.read_bytes())
        plain = plain.get("checkpoint", plain)
        return msgspec.convert(plain, Close)
    except (msgspec.MsgspecError, AttributeError) as error:
        raise UsageError(f"{path} is no checkpoint: {error}") from error


def _check_proofs(options: argparse.Namespace, keys: Sequence[Key], trusted: Close | None) -> int:
    proofs = read_proofs(sys.stdin.buffer.read() if str(options.proof) == "-" else
                         options.proof.read_bytes())  # fmt: skip
    checked = [(proof, check(proof, keys, trusted)) for proof in proofs]
    is_good = all(proved.is_good for _, proved in checked)
    if options.json:
        print_json([
            {**msgspec.to_builtins(proved), "is_vouched_for": proved.is_vouched_for,
             "is_good": proved.is_good,
             "entry": msgspec.to_builtins(proof.entry),
             "checkpoint_sha256": hash_of(proof.checkpoint)}
            for proof, proved in checked
        ])  # fmt: skip
    else:
        page = Page()
        for proof, proved in checked:
            _print_proof(page, proof, proved)
    return OK if is_good else BAD


def _print_proof(page: Page, proof: Proof, proved: Proved) -> None:
    entry, close = proof.entry, proof.checkpoint
    page.line(f"posting {entry.number} of {entry.event_id}", "bold")
    page.line(
        f"  {entry.owner} {entry.bucket}, {entry.effective_period}, posted in {entry.posted_period}"
    )
    for name, pico in (("cost  ", entry.cost), ("charge", entry.charge)):
        page.line(amount(format_usd(pico)).plain.join((f"  {name} ", f" {entry.currency}")))
    if not proved.is_included:
        page.line(f"  NOT in what the checkpoint of {close.period} sealed", "bold red")
        return
    page.line(
        f"  is line {proof.index + 1:,} of the {close.postings:,} that {close.by} sealed as"
        f" {close.period} on {when(close.recorded_at)}",
        "green" if proved.is_good and proved.is_vouched_for else "yellow",
    )
    page.line(f"  checkpoint {hash_of(close)}")
    as_found = Checkpoint(close=close, is_sealed=True, is_linked=True, signature=proved.signature)
    page.line(f"  {_proves(as_found)}", "bold red" if proved.signature == "bad" else "")
    if proved.must_be_signed and not proved.is_vouched_for:
        page.line(
            "  NOT PROVED: none of the keys that were given signed this checkpoint, so anybody can"
            " have made it up",
            "bold red",
        )
    if proved.is_trusted is None:
        page.line("  compare the checkpoint with one that was kept elsewhere: --checkpoint FILE")
    elif proved.is_trusted:
        page.line("  it is the checkpoint that was kept elsewhere", "green")
    else:
        page.line("  it is NOT the checkpoint that was kept elsewhere", "bold red")
