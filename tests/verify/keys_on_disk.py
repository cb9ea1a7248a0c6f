"""Keys as files, as an operator has them."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PEM = serialization.Encoding.PEM


def ed25519(path: Path) -> Path:
    """A fresh private key as PEM (PKCS 8)."""
    plain = serialization.NoEncryption()
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain))
    return path


def secret(path: Path, text: str = "0123456789abcdef0123456789abcdef\n") -> Path:
    """A secret for HMAC."""
    path.write_text(text, "utf-8")
    return path
