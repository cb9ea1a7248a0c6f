"""Checkpoints: the record of a close as signed bytes, each naming the one before it.

What one proves depends on how it is signed; `PROVES` says it in words. None of them shows that the
last checkpoints were not cut off: somebody else must keep a copy (`costspan close --json`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from costspan.core.journal.records import Close

ED25519, HMAC = "ed25519", "hmac-sha256"
SECRET_BYTES_MIN = 32
"""A key for HMAC-SHA256 is at least as long as its hash (RFC 7518, section 3.2)."""
_FORM = "costspan checkpoint 1"
_LABEL = b"costspan checkpoint key id"
_KEY_ID_CHARS = 32

PROVES = {
    ED25519: "only the holder of the private key can have signed it; with the public key anybody"
    " can check that, and cannot forge one",
    HMAC: "nobody without the key changed it since; but whoever has the key to check it could have"
    " made it too, so it proves nothing to an outsider",
    None: "it is not signed: it shows that it agrees with itself and with the books, and anybody"
    " who can write the ledger could have made it anew",
}
"""Algorithm (None: unsigned) -> what a checkpoint signed so proves."""

_encode = msgspec.json.Encoder().encode


class KeyProblem(ValueError):
    """A checkpoint key that cannot be used; the text says why and what would be right."""


class Key(NamedTuple):
    """A key to sign or to check checkpoints with. It shows its id, never itself.

    `sign` is whether it can sign: a public key cannot.
    """

    algorithm: str
    key_id: str
    can_sign: bool
    material: Any

    def __repr__(self) -> str:
        return f"Key({self.algorithm}, {self.key_id})"

    def sign(self, content: bytes) -> str:
        """The signature of `content`, in hex.

        Raises:
            KeyProblem: if this is a public key.
        """
        if not self.can_sign:
            raise KeyProblem(
                f"the key {self.key_id} is a public key: it checks, and cannot sign."
                " checkpoint_key must name the private key"
            )
        if self.algorithm == HMAC:
            return hmac.new(self.material, content, hashlib.sha256).hexdigest()
        return bytes(self.material.sign(content)).hex()

    def has_signed(self, content: bytes, signature: str) -> bool:
        """Whether this key made this signature of `content`."""
        if self.algorithm == HMAC:
            return hmac.compare_digest(self.sign(content).encode(), signature.encode())
        public = self.material.public_key() if self.can_sign else self.material
        from cryptography.exceptions import InvalidSignature

        try:
            public.verify(bytes.fromhex(signature), content)
        except (InvalidSignature, ValueError):
            return False
        return True

    def public_pem(self) -> str:
        """The public key as PEM, for whoever is to check and not to sign.

        Raises:
            KeyProblem: if the key is a secret of HMAC, which has no public half.
        """
        if self.algorithm != ED25519:
            raise KeyProblem("an HMAC key has no public half: whoever checks with it could sign")
        public = self.material.public_key() if self.can_sign else self.material
        kinds = _cryptography()
        pem: bytes = public.public_bytes(
            kinds.Encoding.PEM, kinds.PublicFormat.SubjectPublicKeyInfo
        )
        return pem.decode()


def read_key(path: Path) -> Key:
    """The key in a file: an Ed25519 key as PEM (private or public), else a secret for HMAC-SHA256.

    Raises:
        KeyProblem: if it cannot be read or used, or needs `cryptography` and that is not there.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeyProblem(f"the checkpoint key {path} cannot be read: {error.strerror}") from error
    if content.lstrip().startswith(b"-----BEGIN"):
        return _ed25519(path, content)
    secret = content.strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise KeyProblem(
            f"the checkpoint key {path} has {len(secret)} bytes: a secret has {SECRET_BYTES_MIN} or"
            " more, or write an Ed25519 key as PEM"
        )
    key_id = hmac.new(secret, _LABEL, hashlib.sha256).hexdigest()[:_KEY_ID_CHARS]
    return Key(HMAC, key_id, True, secret)


def _ed25519(path: Path, pem: bytes) -> Key:
    kinds = _cryptography()
    can_sign = b"PRIVATE KEY" in pem
    try:
        if can_sign:
            key: Any = kinds.load_pem_private_key(pem, password=None)
        else:
            key = kinds.load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise KeyProblem(f"the checkpoint key {path} cannot be read: {error}") from error
    public = key.public_key() if can_sign else key
    if type(public).__name__ != "Ed25519PublicKey" and "Ed25519" not in type(public).__name__:
        raise KeyProblem(f"the checkpoint key {path} is no Ed25519 key")
    raw = public.public_bytes(kinds.Encoding.Raw, kinds.PublicFormat.Raw)
    return Key(ED25519, hashlib.sha256(raw).hexdigest()[:_KEY_ID_CHARS], can_sign, key)


def _cryptography() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise KeyProblem(
            "Ed25519 keys need cryptography: pip install 'costspan[signing]'; a secret for"
            " HMAC-SHA256 needs nothing"
        ) from error
    return serialization


def canonical(close: Close) -> bytes:
    """The bytes of a checkpoint that are signed: a JSON array of texts and integers.

    The form, period, root, postings, hash of the checkpoint before, who, why, when (ns UTC), what
    it was forced over, the algorithm and the key's id.
    """
    return _encode(
        [_FORM, close.period, close.root, close.postings, close.previous, close.by, close.reason,
         close.recorded_at, close.forced, close.algorithm, close.key_id]
    )  # fmt: skip


def hash_of(close: Close) -> str:
    """What the next checkpoint names this one by: SHA-256 of its bytes and its signature."""
    content = canonical(close) + b"\n" + _encode(close.signature)
    return hashlib.sha256(content).hexdigest()


def signed(close: Close, key: Key | None) -> Close:
    """The checkpoint, signed if there is a key.

    Raises:
        KeyProblem: if the key cannot sign.
    """
    if key is None:
        return close
    named = msgspec.structs.replace(close, algorithm=key.algorithm, key_id=key.key_id)
    return msgspec.structs.replace(named, signature=key.sign(canonical(named)))


Verdict = Literal["good", "bad", "unsigned", "unknown key"]


def verdict_on(close: Close, keys: Sequence[Key]) -> Verdict:
    """What the signature of a checkpoint is worth under these keys."""
    if close.algorithm is None and close.key_id is None and close.signature is None:
        return "unsigned"
    for key in keys:
        if (key.algorithm, key.key_id) == (close.algorithm, close.key_id):
            is_good = key.has_signed(canonical(close), close.signature or "")
            return "good" if is_good else "bad"
    return "unknown key"


def unvouched(
    closes: Sequence[Close], keys: Sequence[Key], trusted: Close | None = None
) -> list[Close]:
    """The checkpoints, given the earliest first, that nothing the reader believes speaks for.

    A checkpoint that they hold (`trusted`) speaks for itself and, through the chain, for all before
    it. Their keys speak for what they signed; and the first that they signed for those before it,
    which may be older than the key. From then on every one must be signed: else whoever can write
    the ledger leaves the signature out, and changes what they like. Without keys there is nothing
    to ask of a checkpoint.
    """
    if not keys:
        return []
    known = hash_of(trusted) if trusted is not None else None
    held = max((at for at, each in enumerate(closes) if hash_of(each) == known), default=-1)
    is_good = [verdict_on(each, keys) == "good" for each in closes]
    first = is_good.index(True) if True in is_good else 0
    return [each for at, each in enumerate(closes) if at > held and at >= first and not is_good[at]]


def broken_links(closes: Iterable[Close]) -> list[Close]:
    """The checkpoints, given the earliest first, that do not name the one before them."""
    broken: list[Close] = []
    before = ""
    for close in closes:
        if close.previous != before:
            broken.append(close)
        before = hash_of(close)
    return broken
