"""What may be shown of a ledger's URL: never a password, whatever became of it."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

_HOST = re.compile(r"(\[[^\[\]@]*\]|[^:\[\]@]*)(:[0-9]*)?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_LOGIN = re.compile(r"(\b[\w+.-]+://[^\s:@/]*):\S*@")
_SECRET = re.compile("password|secret|token|scram", re.IGNORECASE)
ENCODED = (
    "in a password or a name, % is written %25, @ %40, : %3A, / %2F, ? %3F, # %23, [ %5B and ] %5D"
)
"""What to do about a URL that is not clear."""


def shown_url(url: str) -> str:
    """A ledger's URL without its passwords; its scheme alone where it is unclear what is one."""
    if url.startswith("sqlite:") or ":" not in url:
        return url
    parts = split_url(url)
    if parts is None:
        return f"{url.partition(':')[0]}:..."
    user, at, host = parts.netloc.rpartition("@")
    kept = "&".join(each for each, *_ in pieces_of(parts.query) if not _SECRET.search(each))
    shown = joined(parts._replace(netloc=user.partition(":")[0] + at + host, query=kept))
    return shown if "://" in url else shown.replace("://", ":", 1)


def joined(parts: SplitResult) -> str:
    """The URL of these parts. `urlunsplit` leaves out the slashes where there is no host."""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"


def split_url(url: str) -> SplitResult | None:
    """The parts of a URL; None where a password that is not encoded may have cut it elsewhere."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    user, _, hosts = parts.netloc.rpartition("@")
    after = url.partition("://" if "://" in url else ":")[2][len(parts.netloc) :]
    is_clear = (
        "@" not in user
        and "@" not in after
        and "#" not in url
        and all(_HOST.fullmatch(each) for each in hosts.split(","))
        and all(_NAME.fullmatch(name) for _, name, _ in pieces_of(parts.query))
    )
    return parts if is_clear else None


def pieces_of(query: str) -> list[tuple[str, str, str]]:
    """(piece, name, value) of each piece of a query, as they are written: a + is a + there."""
    pieces = [each for each in query.split("&") if each]
    return [(each, each.partition("=")[0], each.partition("=")[2]) for each in pieces]


def without_logins(text: str) -> str:
    """What somebody typed, without the password of any URL in it."""
    return _LOGIN.sub(r"\1:***@", text)


def secrets_of(url: str) -> set[str]:
    """What no text about this ledger may repeat: its passwords, as written and as meant."""
    parts = split_url(url)
    if parts is None:
        return {url}
    said = [parts.netloc.rpartition("@")[0].partition(":")[2]]
    said += [value for each, _, value in pieces_of(parts.query) if _SECRET.search(each)]
    return {each for raw in said for each in (raw, unquote(raw)) if each}
