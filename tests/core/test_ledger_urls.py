"""What may be shown of a ledger's URL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costspan.core.ledger_errors import LedgerError
from costspan.core.ledger_urls import secrets_of, shown_url
from costspan.core.settle.ledger import open_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a/b?c@d.db", "sqlite:///a/b?c@d.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://me@db/x?a=b%20c+d", "postgresql://me@db/x?a=b%20c+d"),
        ("postgresql://me:secret@db:5432/x", "postgresql://me@db:5432/x"),
        ("postgresql://me:a:secret@[::1]:5432,[::2]/x", "postgresql://me@[::1]:5432,[::2]/x"),
        ("postgresql:///x?service=books", "postgresql:///x?service=books"),
        ("postgresql:///x?password=secret&user=me", "postgresql:///x?user=me"),
        ("postgresql:///x?sslpassword=secret&SSLPASSWORD=secret", "postgresql:///x"),
        ("postgresql:///x?oauth_client_secret=secret", "postgresql:///x"),
        ("postgresql:///x?a=b;password=secret&c=d", "postgresql:///x?c=d"),
        ("POSTGRESQL://me:secret@db/x", "postgresql://me@db/x"),
        ("postgresql+psycopg://me:secret@db/x", "postgresql+psycopg://me@db/x"),
        ("other:where", "other:where"),
        ("nothing", "nothing"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize("between", ["@", ":", "/", "?", "#", "[", "]", "%", "&", "=", "?a=", "//"])
@pytest.mark.parametrize("before", ["", "5432", "se"])
@pytest.mark.parametrize("rest", ["@db/x", "@db:5432/x?sslmode=require", "@/x?host=/tmp"])
def test_a_password_that_was_not_encoded_is_not_shown(before: str, between: str, rest: str) -> None:
    """Wherever it cut the URL."""
    url = f"postgresql://me:{before}{between}secret{rest}"
    assert "secret" not in shown_url(url)
    with pytest.raises(LedgerError) as raised:
        open_url(f"nobody+{url}", create=True)
    assert "secret" not in str(raised.value)


@given(st.text(min_size=1), st.sampled_from(["@db/x", "@db:1,db:2/x?a=b", "@/x?host=/tmp"]))
def test_no_password_whatever_is_shown(password: str, rest: str) -> None:
    shown = shown_url(f"postgresql://me:{password}{rest}")
    assert shown in (f"postgresql://me{rest}", "postgresql:...") or password in "postgresql://me"


def test_what_no_text_may_repeat() -> None:
    url = "postgresql://me:a%40b@db/x?password=c%2F&sslpassword=d&schema=e"
    assert secrets_of(url) == {"a%40b", "a@b", "c%2F", "c/", "d"}
    assert secrets_of("postgresql://me@db/x") == set()
