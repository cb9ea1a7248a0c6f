"""Persons behind pseudonyms in either ledger, however long a client claims somebody's id to be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from known_calls import begin, flat, keep

from costspan.core.settle.ledger import Ledger, open_url

# Nothing compresses it: no index of PostgreSQL has room for its 3,000 bytes.
LONG = "".join(chr(random.Random(number).randrange(0x4E00, 0x9FFF)) for number in range(1000))


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    url = "sqlite:///:memory:" if request.param == "sqlite" else request.getfixturevalue("url")
    with closing(open_url(url, create=True)) as opened:
        begin(opened)
        yield opened


def test_a_person_of_any_length_has_one_pseudonym(ledger: Ledger) -> None:
    keep(ledger, flat(1, user="ann"), flat(2, client_claims={"end_user": LONG}))
    keep(ledger, flat(3, client_claims={"end_user": LONG}), flat(4, client_claims={"user": "ann"}))
    first, *_ = [each.event.facts for each in ledger.events()]
    claimed = {repr(each.event.facts.client_claims) for each in ledger.events()}
    long, ann = ledger.persons.pseudonym_of(LONG), ledger.persons.pseudonym_of("ann")
    assert first.user == ann
    assert claimed == {"None", f"{{'end_user': '{long}'}}", f"{{'user': '{ann}'}}"}
    assert ledger.persons.names([long or "", ann or ""])[ann or ""] == "ann"
    assert ledger.persons.mentions(LONG) == 0
    with ledger.settling(1):
        assert ledger.persons.forget(long or "")
    assert ledger.persons.pseudonym_of(LONG) is None
    assert list(ledger.damaged()) == []
