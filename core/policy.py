"""What the settings ask for, put beside what a ledger already has: the policy records to add.

The first policy of a ledger holds for everything. A later one holds from the moment it is set, so
that no upgrade and no edited file reprices history: that is what restating is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from costspan.core import hooks
from costspan.core.config import PROFILE_DEFAULT, Config, ConfigError
from costspan.core.decide import RuleError, RuleSet, load_profile, load_rules
from costspan.core.journal.records import Policy
from costspan.core.prices import ChargeBook, PriceBook
from costspan.core.prices.charge_file import load_charges
from costspan.core.prices.contract import load
from costspan.core.settle.settlement import Settlement

_PUBLIC = (("genai-prices", "genai-prices"), ("litellm", "litellm"))
"""(name of plugin and book, distribution) of the public price lists, in order of precedence."""

_CLOCKS_AGREE_NS = 300 * 10**9
"""Machines whose clocks are kept agree to much less; it is what Kerberos allows between two."""


def rules_of(settings: Config) -> RuleSet:
    """The rule set the settings name; the default profile if they name none.

    Raises:
        ConfigError: if the file cannot be used.
    """
    if settings.rules is not None:
        return rules_from(settings.rules, settings.profile)
    try:
        return load_profile(settings.profile or PROFILE_DEFAULT)
    except RuleError as error:
        raise ConfigError(f"rules: {settings.profile}: {error}") from error


def rules_from(path: Path, profile: str | None) -> RuleSet:
    """The rules in a file, in front of those of the profile.

    Raises:
        ConfigError: if the file cannot be used.
    """
    try:
        return load_rules(path.read_text("utf-8"), profile)
    except OSError as error:
        raise ConfigError(f"rules: {path} cannot be read: {error}") from error
    except RuleError as error:
        raise ConfigError(f"rules: {path}: {error}") from error


def contract_of(settings: Config) -> list[PriceBook]:
    """The operator's contract book, if the settings name one.

    Raises:
        ConfigError: if the file cannot be used.
    """
    return [] if settings.prices is None else [contract_from(settings.prices)]


def contract_from(path: Path) -> PriceBook:
    """The price book in a file.

    Raises:
        ConfigError: if the file cannot be used.
    """
    try:
        return load(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"prices: {error}") from error


def charges_of(settings: Config) -> ChargeBook | None:
    """The operator's charge book, if the settings name one.

    Raises:
        ConfigError: if the file cannot be used.
    """
    return None if settings.charges is None else charges_from(settings.charges)


def charges_from(path: Path) -> ChargeBook:
    """The charge book in a file.

    Raises:
        ConfigError: if the file cannot be used.
    """
    try:
        return load_charges(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"charges: {error}") from error


def public_books() -> list[PriceBook]:
    """The price lists that plugins bring, the public ones last and in their order; none twice."""
    books: dict[str, PriceBook] = {}
    public = [name for name, _ in _PUBLIC]
    for _, found in sorted(
        hooks.call("prices"),
        key=lambda each: (public.index(each[0]) if each[0] in public else -1, each[0]),
    ):
        for book in found:
            books.setdefault(book.id, book)
    return list(books.values())


def propose(settlement: Settlement, settings: Config, now_ns: int) -> list[Policy]:
    """The policies to add so that the settings hold from now on; none if they hold already.

    Settings that say nothing about rules, prices or charges leave the ledger's own in force, except
    that a newer version of a public price list is taken up; a list that is not installed here, or
    is older here, stays as it is.

    What starts after `now_ns` (ns UTC) is of a machine whose clock ran ahead, and not in force:
    what these settings say was said after it, so it holds there too, else the other would take
    force one day without anybody's doing.
    """
    held = settlement.policies()
    if not held:
        rules = rules_of(settings)
        books = [*contract_of(settings), *public_books()]
        return [_keep(settlement, rules, books, charges_of(settings), 0)]
    last, ahead = _now_and_ahead(held, now_ns)
    since_ns = min(settings.since_ns, now_ns)
    if since_ns <= last.effective_from:
        return []  # somebody's newer settings hold: two processes are not to take turns
    says_rules = settings.rules is not None or settings.profile is not None
    rules_sha256 = last.rules
    if says_rules:
        rules = rules_of(settings)
        settlement.keep_rule_set(rules)
        rules_sha256 = rules.sha256
    known = {sha: (name, source) for sha, name, source in settlement.price_book_versions()}
    public = {name for name, _ in _PUBLIC}
    contract = [sha for sha in last.books if known[sha][0] not in public]
    if settings.prices is not None:
        contract = list[str]()
        for book in contract_of(settings):
            settlement.keep_price_book(book)
            contract.append(book.sha256)
    lists = {known[sha][0]: sha for sha in last.books if known[sha][0] in public}
    if newer := _newer_installed({name: known[sha][1] for name, sha in lists.items()}):
        for book in public_books():
            if book.id in newer:
                settlement.keep_price_book(book)
                lists[book.id] = book.sha256
    charges_sha256 = last.charges
    if (charges := charges_of(settings)) is not None:
        settlement.keep_charge_book(charges)
        charges_sha256 = charges.sha256
    books_now = (*contract, *(lists[name] for name, _ in _PUBLIC if name in lists))
    wanted = (rules_sha256, books_now, charges_sha256)
    # From when the settings took force in this process, so that they decide its own events.
    starts = [since_ns] if wanted != _parts(last) else []
    if says_rules or settings.prices is not None or settings.charges is not None:
        starts += [start for start, each in ahead.items() if wanted != _parts(each)]
    return [Policy(rules_sha256, books_now, start, "settings", charges_sha256) for start in starts]


def ahead_of_clock(policies: Sequence[Policy], now_ns: int) -> list[Policy]:
    """Those that have not begun, and will change what is decided when they do.

    Args:
        policies: Of a ledger, oldest `effective_from` first.
        now_ns: The time it is (ns UTC).
    """
    if not policies:
        return []
    now, ahead = _now_and_ahead(policies, now_ns)
    return [each for each in ahead.values() if _parts(each) != _parts(now)]


def _now_and_ahead(policies: Sequence[Policy], now_ns: int) -> tuple[Policy, dict[int, Policy]]:
    """The policy in force, and those ahead by their start: of several, the one said last."""
    begun, ahead = policies[0], dict[int, Policy]()
    for each in policies[1:]:
        if each.effective_from > now_ns + _CLOCKS_AGREE_NS:
            ahead[each.effective_from] = each
        else:
            begun = each
    return begun, ahead


def _parts(policy: Policy) -> tuple[str, tuple[str, ...], str | None]:
    return (policy.rules, policy.books, policy.charges)


def _newer_installed(held: Mapping[str, str | None]) -> set[str]:
    """The public lists that are newer here than those held, or not held at all.

    Each for itself: machines that drain into one ledger need not have the same ones.
    """
    newer = set[str]()
    for name, distribution in _PUBLIC:
        try:
            installed = version(distribution)
        except PackageNotFoundError:
            continue
        kept = held.get(name)
        if kept is None or _order(installed) > _order(kept):
            newer.add(name)
    return newer


def _order(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".") if part.isdecimal())


def _keep(
    settlement: Settlement,
    rules: RuleSet,
    books: list[PriceBook],
    charges: ChargeBook | None,
    effective_from: int,
) -> Policy:
    settlement.keep_rule_set(rules)
    for book in books:
        settlement.keep_price_book(book)
    if charges is not None:
        settlement.keep_charge_book(charges)
    hashes = tuple(book.sha256 for book in books)
    charged = None if charges is None else charges.sha256
    return Policy(rules.sha256, hashes, effective_from, "settings", charged)
