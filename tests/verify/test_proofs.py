"""A proof of one line is checked without any ledger, and proves nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from full_books import NOW, call, fresh, full, keep
from keys_on_disk import ed25519

from costspan.core.checkpoints import read_key
from costspan.core.journal.records import Close
from costspan.core.proofs import Proof, ProofError, check, prove, read_proofs
from costspan.core.settle.close import close_period
from costspan.core.settle.entries import Entry
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.merkle import Tree


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with closing(full(tmp_path_factory.mktemp("books") / "ledger.db")) as opened:
        yield opened


def test_every_sealed_line_proves(ledger: Ledger) -> None:
    sealed = [number for number, _ in ledger.sealed("2026-03")]
    for number in sealed:
        (proof,) = prove(ledger, str(number))
        assert proof.entry.number == number
        assert check(proof).is_good
        (again,) = read_proofs(msgspec.json.encode([proof]))
        assert again == proof
    assert len(sealed) == 20


def test_an_event_is_proved_with_all_it_sealed(ledger: Ledger) -> None:
    of_event = prove(ledger, "a1")
    assert [proof.checkpoint.period for proof in of_event] == ["2026-02", "2026-03"]
    assert all(check(proof).is_good for proof in of_event)
    assert {proof.entry.event_id for proof in prove(ledger, "req-1")} == {"a1"}


def test_a_proof_shows_one_owner(tmp_path: Path) -> None:
    with closing(fresh(tmp_path / "ledger.db")) as ledger:
        keep(ledger, call(1, members={"acme": 1, "globex": 2}))
        close_period(ledger, "2026-02", "ann", "month's end", NOW)
        with pytest.raises(ProofError, match=r"2 owners bear it.*--tenant \(acme, globex\)"):
            prove(ledger, "a1")
        (proof,) = prove(ledger, "a1", "globex")
        assert proof.entry.owner == "globex"
        assert b"acme" not in msgspec.json.encode(proof)
        with pytest.raises(ProofError, match="nothing that was sealed of it is initech's"):
            prove(ledger, "a1", "initech")


@pytest.mark.parametrize("name", ["9999999", "nobody", "a32", "9" * 30])
def test_what_is_not_sealed_is_not_proved(ledger: Ledger, name: str) -> None:
    with pytest.raises(ProofError, match="no sealed posting"):
        prove(ledger, name)


def test_a_changed_entry_or_checkpoint_proves_nothing(ledger: Ledger) -> None:
    proof = prove(ledger, "a1")[0]
    for name in Entry.__struct_fields__:
        value = getattr(proof.entry, name)
        other = value + 1 if isinstance(value, int) else f"{value}x"
        entry = msgspec.structs.replace(proof.entry, **{name: other})
        assert not check(msgspec.structs.replace(proof, entry=entry)).is_included, name
    for name, other in (("root", "00" * 32), ("postings", 3)):
        close = msgspec.structs.replace(proof.checkpoint, **{name: other})
        assert not check(msgspec.structs.replace(proof, checkpoint=close)).is_included, name
    assert not check(msgspec.structs.replace(proof, index=proof.index + 1)).is_included


def test_a_proof_is_worth_what_its_checkpoint_is(tmp_path: Path) -> None:
    key = read_key(ed25519(tmp_path / "key"))
    stranger = read_key(ed25519(tmp_path / "other"))
    with closing(fresh()) as ledger:
        keep(ledger, call(1), call(2))
        close = close_period(ledger, "2026-02", "ann", "end", NOW, key=key)
        (proof,) = prove(ledger, "a1")
        keep(ledger, call(3, "2026-03-01"))
    assert check(proof, [key], close).is_good
    assert check(proof, [stranger]).signature == "unknown key"
    renamed = msgspec.structs.replace(close, reason="another")
    assert not check(proof, [key], renamed).is_good
    bad = msgspec.structs.replace(proof, checkpoint=renamed)
    assert (check(bad, [key]).is_included, check(bad, [key]).is_good) == (True, False)


def test_with_keys_only_a_good_signature_or_a_trusted_checkpoint_proves(tmp_path: Path) -> None:
    """An entry made up, and a checkpoint made up around it, by somebody who has no key."""
    key = read_key(ed25519(tmp_path / "key"))
    with closing(fresh()) as ledger:
        keep(ledger, call(1))
        sealed = close_period(ledger, "2026-02", "ann", "end", NOW, key=key)
        (proof,) = prove(ledger, "a1")
    assert check(proof, [key]).is_good
    entry = msgspec.structs.replace(proof.entry, cost=1, charge=1)
    tree = Tree()
    tree.add(msgspec.json.encode(msgspec.structs.astuple(entry)))
    made_up = Close("2026-02", tree.root(), 1, "ann", "end", NOW)
    strange = msgspec.structs.replace(
        made_up, algorithm="hmac-sha256", key_id="ff", signature="00" * 32
    )
    for checkpoint in (made_up, strange):
        forged = msgspec.structs.replace(proof, entry=entry, checkpoint=checkpoint)
        assert check(forged).is_included
        assert check(forged).is_vouched_for is False
        assert not check(forged, [key]).is_good
        assert not check(forged, [key], sealed).is_good
        assert check(forged, [key], checkpoint).is_good  # the reader says that they hold it


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'[{"form": "x"}]', b"\xff"])
def test_what_is_no_proof_is_refused(data: bytes) -> None:
    with pytest.raises(ProofError, match="no proof"):
        read_proofs(data)


def test_nothing_is_proved_before_a_close() -> None:
    with closing(fresh()) as ledger:
        keep(ledger, call(1))
        with pytest.raises(ProofError, match="no period is closed"):
            prove(ledger, "a1")


def test_a_broken_seal_proves_nothing(tmp_path: Path) -> None:
    with closing(full(tmp_path / "ledger.db")) as ledger:
        db = ledger.connection  # type: ignore[attr-defined]
        db.execute("DROP TRIGGER postings_no_update")
        db.execute("UPDATE postings SET cost = cost + 1 WHERE id = 1")
        with pytest.raises(ProofError, match="seal of 2026-02 is broken"):
            prove(ledger, "2")


def test_a_proof_has_a_form() -> None:
    assert set(Proof.__struct_fields__) == {"form", "entry", "index", "path", "checkpoint"}
