"""Checkpoints: what a signature proves, the chain, keys that change, and what is no key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from full_books import NOW, call, fresh, keep
from hypothesis import given
from hypothesis import strategies as st
from keys_on_disk import ed25519, secret

from costspan.core.checkpoints import (
    ED25519,
    HMAC,
    Key,
    KeyProblem,
    broken_links,
    canonical,
    hash_of,
    read_key,
    signed,
    verdict_on,
)
from costspan.core.journal.records import Close
from costspan.core.settle.close import CloseError, close_period
from costspan.core.settle.ledger import Ledger
from costspan.core.verify import Checkpoint, Problem, verify

CLOSE = Close("2026-02", "ab" * 32, 3, "ann", "month's end", 5, "cd" * 32, ("1 open call",))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(fresh()) as opened:
        keep(opened, call(1), call(2, "2026-03-03"))
        yield opened


@pytest.mark.parametrize("make", [ed25519, secret])
def test_a_signature_is_of_its_key_and_of_every_field(make: object, tmp_path: Path) -> None:
    key = read_key(make(tmp_path / "key"))  # type: ignore[operator]
    close = signed(CLOSE, key)
    assert (close.algorithm, close.key_id) == (key.algorithm, key.key_id)
    assert verdict_on(close, [key]) == "good"
    assert verdict_on(close, []) == "unknown key"
    changes = {
        "period": "2026-03", "root": "ac" * 32, "postings": 4, "by": "bob", "reason": "none",
        "recorded_at": 6, "previous": "", "forced": (), "signature": "00" * 64,
    }  # fmt: skip
    assert {*changes, "algorithm", "key_id"} == set(Close.__struct_fields__)
    for name, value in changes.items():
        assert verdict_on(msgspec.structs.replace(close, **{name: value}), [key]) == "bad", name
    for name in ("algorithm", "key_id"):  # another key's, then: never this one's, never unsigned
        other = msgspec.structs.replace(close, **{name: None})
        assert verdict_on(other, [key]) == "unknown key"


def test_a_public_key_checks_and_cannot_sign(tmp_path: Path) -> None:
    private = read_key(ed25519(tmp_path / "key.pem"))
    (tmp_path / "public.pem").write_text(private.public_pem(), "utf-8")
    public = read_key(tmp_path / "public.pem")
    assert (public.algorithm, public.key_id) == (ED25519, private.key_id)
    assert verdict_on(signed(CLOSE, private), [public]) == "good"
    assert public.public_pem() == private.public_pem()
    with pytest.raises(KeyProblem, match="is a public key"):
        signed(CLOSE, public)
    assert "material" not in repr(private)


def test_a_secret_has_no_public_half(tmp_path: Path) -> None:
    key = read_key(secret(tmp_path / "key"))
    assert key.algorithm == HMAC
    with pytest.raises(KeyProblem, match="no public half"):
        key.public_pem()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"short", "has 5 bytes"),
        (b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (b"-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n", "cannot be read"),
    ],
)
def test_what_is_no_key_is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeyProblem, match=what):
        read_key(tmp_path / "key")
    with pytest.raises(KeyProblem, match="No such file"):
        read_key(tmp_path / "nowhere")


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "key").write_bytes(
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(KeyProblem, match="no Ed25519 key"):
        read_key(tmp_path / "key")


def test_without_cryptography_a_secret_still_signs(tmp_path: Path) -> None:
    """In a process that cannot import it: an Ed25519 key says what to install."""
    code = f"""
import sys
sys.modules["cryptography"] = None
from pathlib import Path
from costspan.core.checkpoints import KeyProblem, read_key
read_key(Path({str(secret(tmp_path / "secret"))!r})).sign(b"")
try:
    read_key(Path({str(ed25519(tmp_path / "pem"))!r}))
except KeyProblem as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'costspan[signing]'" in done.stdout


def test_every_checkpoint_names_the_one_before(ledger: Ledger, tmp_path: Path) -> None:
    """Keys change in between, and one close is not signed."""
    old, new = read_key(ed25519(tmp_path / "old")), read_key(secret(tmp_path / "new"))
    first = close_period(ledger, "2026-02", "ann", "end", NOW, key=old)
    second = close_period(ledger, "2026-03", "ann", "end", NOW, key=new)
    third = close_period(ledger, "2026-04", "ann", "end", NOW)
    assert [each.previous for each in (first, second, third)] == [
        "", hash_of(first), hash_of(second)
    ]  # fmt: skip
    found = list(verify(ledger, [old, new], trusted=third))
    assert [each for each in found if isinstance(each, Problem)] == []
    verdicts = [each.signature for each in found if isinstance(each, Checkpoint)]
    assert verdicts == ["good", "good", "unsigned"]
    (only,) = verify(ledger, [new], period="2026-03")
    assert isinstance(only, Checkpoint)
    assert (only.close, only.is_sealed, only.signature) == (second, True, "good")
    assert broken_links([first, third]) == [third]
    assert broken_links([second, third]) == [second]
    forged = msgspec.structs.replace(first, reason="another")
    assert broken_links([forged, second, third]) == [second]


def test_a_forged_close_is_found_by_its_signature(ledger: Ledger, tmp_path: Path) -> None:
    """Somebody who can write the ledger changes a posting, the root and every hash with it."""
    key = read_key(ed25519(tmp_path / "key"))
    close = close_period(ledger, "2026-02", "ann", "end", NOW, key=key)
    forged = msgspec.structs.replace(close, root="00" * 32)
    assert verdict_on(forged, [key]) == "bad"
    replaced = msgspec.structs.replace(forged, algorithm=None, key_id=None, signature=None)
    assert verdict_on(replaced, [key]) == "unsigned"  # and its hash is another: see --checkpoint
    assert hash_of(replaced) != hash_of(close)


def test_with_keys_a_checkpoint_that_none_of_them_signed_is_no_good(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Whoever can write the ledger leaves the signature out, or makes the whole chain anew."""
    key = read_key(ed25519(tmp_path / "key"))
    stranger = read_key(ed25519(tmp_path / "stranger"))

    def doubted(*keys: Key, **given: Any) -> list[str]:
        found = verify(ledger, keys, **given)
        return [each.what.split(":")[0] for each in found if isinstance(each, Problem)]

    old = close_period(ledger, "2026-02", "ann", "end", NOW)  # before there was a key
    assert doubted() == []
    assert doubted(key) == ["checkpoint 2026-02"]
    assert doubted(key, trusted=old) == []
    first = close_period(ledger, "2026-03", "ann", "end", NOW, key=key)
    assert doubted(key) == []
    assert doubted(stranger) == ["checkpoint 2026-02", "checkpoint 2026-03"]
    assert doubted(stranger, trusted=old) == ["checkpoint 2026-03"]
    assert doubted(stranger, trusted=first) == []
    close_period(ledger, "2026-04", "ann", "end", NOW)
    last = close_period(ledger, "2026-05", "ann", "end", NOW, key=key)
    assert doubted(key) == ["checkpoint 2026-04"]  # signed over blindly: it could be anybody's
    assert doubted(key, period="2026-04") == ["checkpoint 2026-04"]
    assert doubted(key, period="2026-05") == []
    assert doubted(key, trusted=last) == []
    made_up = msgspec.structs.replace(old, reason="another")
    assert doubted(trusted=made_up) == ["checkpoint 2026-02"]
    assert doubted(trusted=last, period="2026-03") == []


def test_what_stands_against_a_close_is_on_record(ledger: Ledger) -> None:
    against = ["2 open calls"]
    with pytest.raises(CloseError, match="2 open calls"):
        close_period(ledger, "2026-02", "ann", "end", NOW, against=lambda: against)
    assert ledger.closes() == []
    forced = close_period(ledger, "2026-02", "ann", "end", NOW, against=lambda: against, force=True)
    assert forced.forced == ("2 open calls",)
    for by, reason in (("", "end"), ("ann", " ")):
        with pytest.raises(CloseError, match="is empty"):
            close_period(ledger, "2026-03", by, reason, NOW)


closes = st.builds(
    Close, st.text(), st.text(), st.integers(0, 2**40), st.text(), st.text(),
    st.integers(0, 2**62), st.text(), st.lists(st.text(), max_size=2).map(tuple),
    st.none() | st.text(), st.none() | st.text(), st.none() | st.text(),
)  # fmt: skip


@given(closes, closes)
def test_two_checkpoints_never_have_the_same_bytes(one: Close, other: Close) -> None:
    if one != other:
        assert hash_of(one) != hash_of(other)
    unsigned = [msgspec.structs.replace(each, signature=None) for each in (one, other)]
    assert (canonical(one) == canonical(other)) == (unsigned[0] == unsigned[1])
