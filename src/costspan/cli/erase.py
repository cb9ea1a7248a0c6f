"""`costspan erase`: a person's id leaves the books; what was spent and charged stays."""

from __future__ import annotations

import argparse

from costspan.cli.exits import BAD, OK
from costspan.cli.hands import hand_of, hand_options, now_ns
from costspan.cli.printing import Page, counted, print_json, to_stderr
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.privacy.erasure import Erased, erase, files_with


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `erase`."""
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="ID", help="the id that the application gave")
    who.add_argument("--pseudonym", metavar="P", help="p:…, as costspan explain shows it")
    hand_options(parser)


def run(options: argparse.Namespace) -> int:
    """Erase; 1 if copies of the id are left that somebody must see to."""
    settings = reader_settings_of(options)
    by, reason = hand_of(options)
    with open_books(settings) as books:
        name = options.user
        if name is None:
            name = books.ledger.persons.names([options.pseudonym]).get(options.pseudonym)
        done = erase(
            books.ledger,
            user=options.user,
            pseudonym=options.pseudonym,
            by=by,
            reason=reason,
            now_ns=now_ns(),
        )
        files = [str(path) for path in files_with(settings.spool, name)] if name else []
        if options.json:
            to_stderr(f"ledger: {books.url}")
            print_json(_plain(done, files))
        else:
            _print(books.url, done, files)
    return OK if done.is_compact and not done.mentions and not files else BAD


def _plain(done: Erased, files: list[str]) -> dict[str, object]:
    return {
        "pseudonym": done.record.pseudonym,
        "by": done.record.by,
        "reason": done.record.reason,
        "recorded_at": done.record.recorded_at,
        "was_known": done.was_known,
        "gone_from_the_file": done.is_compact,
        "mentions_left": done.mentions,
        "files_left": files,
    }


def _print(url: str, done: Erased, files: list[str]) -> None:
    page, record = Page(), done.record
    page.line(f"ledger {url}", "dim")
    if done.was_known:
        page.line(f"erased: nobody can tell any more who {record.pseudonym} was", "green")
    else:
        page.line(f"{record.pseudonym} was erased before, by {record.by}: {record.reason}")
    page.line("its events, postings and sealed roots stay as they are")
    warn = "yellow"
    if not done.is_compact:
        page.line(
            "the deleted bytes may still be in the file: somebody else reads or writes it. Run the"
            f" same again later with --pseudonym {record.pseudonym}",
            warn,
        )
    if done.mentions:
        many = counted(done.mentions, "row")
        page.line(
            f"{many} of observations and events hold the same text in other fields (labels,"
            " sessions, names): what is put there is the application's to choose",
            warn,
        )
    for path in files:
        page.line(f"{path} still holds the id: drain it (costspan drain), then erase again", warn)
