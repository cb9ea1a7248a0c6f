"""A resolver for JSON Web Tokens (RFC 7519), verified with PyJWT.

Verifying a token costs ten times the rest of the middleware, so what a token says is kept by the
token's hash until it expires. A token that is refused is never kept: it would push out good ones.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from costspan.adapters.asgi.middleware import Owner, Resolved, Scope
from costspan.adapters.asgi.resolvers import Resolver, credential
from costspan.core.counters import count

__all__ = ["jwt"]

JWKS: TypeAlias = Mapping[str, Any]

TOKEN_BYTES_MAX = 16 * 1024
CACHED_TOKENS_MAX = 4096
_HMAC_BYTES_MIN = {"HS256": 32, "HS384": 48, "HS512": 64}
_REASONS = (
    ("ExpiredSignatureError", "expired"),
    ("ImmatureSignatureError", "not_yet_valid"),
    ("InvalidAlgorithmError", "algorithm"),
    ("InvalidSignatureError", "signature"),
    ("InvalidAudienceError", "audience"),
    ("InvalidIssuerError", "issuer"),
    ("MissingRequiredClaimError", "claim_missing"),
    ("DecodeError", "malformed"),
)


def jwt(
    *,
    algorithms: Sequence[str],
    audience: str | Sequence[str] | None,
    issuer: str | Sequence[str] | None,
    key: Any = None,
    jwks: JWKS | Callable[[], JWKS] | None = None,
    tenant_claim: str = "tenant",
    session_claim: str | None = None,
    user_claim: str | None = "sub",
    may_delegate_claim: str | None = None,
    leeway_seconds: int = 0,
    header: str = "authorization",
    scheme: str | None = "bearer",
) -> Resolver:
    """The owner that a signed token names.

    Args:
        algorithms: The signature algorithms that are accepted, of one family; never `none`.
        audience: The `aud` that must be there; None takes only tokens without one.
        issuer: The `iss` that must be there; None does not look.
        key: The secret (as long as its hash, RFC 7518 section 3.2) or the issuer's public key.
        jwks: Instead of `key`, the issuer's key set (a parsed JWKS), or a function that gives the
            one in force. It is called in the event loop for every request, so it should only give
            what something else keeps fresh; another object than before is read anew.
        tenant_claim: The claim that is the tenant id.
        session_claim: The claim that is the session, if any.
        user_claim: The claim that is the user, if any.
        may_delegate_claim: The claim that, being `true`, marks a principal that acts for others.
        leeway_seconds: How far the issuer's clock may be off.
        header: The header that carries the token.
        scheme: The word before the token; None if the header is the token.

    Raises:
        ImportError: without PyJWT.
        ValueError: for algorithms that are none, `none`, unknown or of two families, a secret that
            is too short, or not exactly one of `key` and `jwks`.
    """
    issuers = list(issuer) if issuer is not None and not isinstance(issuer, str) else issuer
    verifier = _Verifier(algorithms, key, jwks, audience, issuers, leeway_seconds)
    tokens = _Tokens()

    def owner_of(claims: Mapping[str, Any]) -> Owner:
        if claims.get(tenant_claim) is None:
            count("jwt_refused:no_tenant")
        return Owner(
            claims.get(tenant_claim),
            session=_text(claims, session_claim),
            user=_text(claims, user_claim),
            may_delegate=may_delegate_claim is not None and claims.get(may_delegate_claim) is True,
        )

    def resolve(scope: Scope) -> Resolved:
        token = credential(scope, header, scheme, "jwt_refused")
        if token is None:
            return None
        if len(token) > TOKEN_BYTES_MAX:
            count("jwt_refused:too_long")
            return None
        if verifier.renewed():
            tokens.clear()
        digest = hashlib.sha256(token).digest()
        owner = tokens.get(digest)
        if owner is None and (claims := verifier.claims(token)) is not None:
            owner = owner_of(claims)
            tokens.keep(digest, owner, int(claims["exp"]) + leeway_seconds)
        return owner

    return resolve


def _text(claims: Mapping[str, Any], name: str | None) -> str | None:
    value = None if name is None else claims.get(name)
    return value if isinstance(value, str) else None


class _Tokens:
    """What verified tokens said, until they expire: the least recently used leave first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, Owner]] = OrderedDict()

    def get(self, digest: bytes) -> Owner | None:
        with self._lock:
            found = self._kept.get(digest)
            if found is None:
                return None
            if found[0] <= time.time():
                del self._kept[digest]  # the verifier says why, and counts it
                return None
            self._kept.move_to_end(digest)
            return found[1]

    def keep(self, digest: bytes, owner: Owner, until: float) -> None:
        with self._lock:
            self._kept[digest] = (until, owner)
            if len(self._kept) > CACHED_TOKENS_MAX:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


class _Verifier:
    """PyJWT with everything fixed in advance that a token must not choose."""

    def __init__(
        self,
        algorithms: Sequence[str],
        key: Any,
        jwks: JWKS | Callable[[], JWKS] | None,
        audience: str | Iterable[str] | None,
        issuer: str | list[str] | None,
        leeway_seconds: int,
    ) -> None:
        try:
            import jwt as pyjwt
        except ImportError as missing:
            raise ImportError(
                "the jwt resolver needs PyJWT: pip install 'costspan[jwt]'"
            ) from missing
        self._pyjwt = pyjwt
        self._algorithms = _checked(algorithms, key, pyjwt)
        if (key is None) == (jwks is None):
            raise ValueError("jwt takes a key or a jwks")
        self._key = key
        self._read_jwks = jwks
        self._jwks: JWKS | None = None
        self._keys: Any = None
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway_seconds
        required = {"aud": audience, "iss": issuer}
        self._options: Any = {
            "require": ["exp", *(name for name, value in required.items() if value is not None)],
        }

    def renewed(self) -> bool:
        """Whether the key set is another one now: nothing it verified before holds any more."""
        if self._read_jwks is None:
            return False
        now = self._read_jwks() if callable(self._read_jwks) else self._read_jwks
        if now is self._jwks:
            return False
        self._keys, self._jwks = self._pyjwt.PyJWKSet.from_dict(cast("dict[str, Any]", now)), now
        return True

    def claims(self, token: bytes) -> Mapping[str, Any] | None:
        """What a token says, if all of it holds; None and a count by the reason if not."""
        try:
            found: Mapping[str, Any] = self._pyjwt.decode(
                token,
                self._key if self._keys is None else self._key_of(token),
                algorithms=self._algorithms,
                options=self._options,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
            )
        except Exception as error:
            reason = next(
                (said for name, said in _REASONS if isinstance(error, getattr(self._pyjwt, name))),
                "key" if isinstance(error, LookupError) else type(error).__name__,
            )
            count(f"jwt_refused:{reason}")
            return None
        return found

    def _key_of(self, token: bytes) -> Any:
        """The key of the set that the token names; the only one, if it names none.

        Raises:
            LookupError: if there is no such key.
        """
        kid = self._pyjwt.get_unverified_header(token).get("kid")
        keys = list(self._keys)
        if kid is None and len(keys) == 1:
            return keys[0]
        for each in keys:
            if kid is not None and each.key_id == kid:
                return each
        raise LookupError(kid)


def _checked(algorithms: Sequence[str], key: Any, pyjwt: Any) -> list[str]:
    """The algorithms, if they can be trusted together.

    An HMAC algorithm beside a public-key one lets who knows the public key sign (RFC 8725, 2.1).
    """
    names = [algorithms] if isinstance(algorithms, str) else list(algorithms)
    known = set(pyjwt.PyJWS().get_algorithms()) - {"none"}
    if not names or not known.issuperset(names):
        raise ValueError(f"jwt needs algorithms among {', '.join(sorted(known))}")
    if len({name.startswith("HS") for name in names}) > 1:
        raise ValueError("jwt takes shared secrets (HS…) or public keys, not both")
    secret = key.encode() if isinstance(key, str) else key
    if isinstance(secret, bytes):
        needed = max(_HMAC_BYTES_MIN.get(name, 0) for name in names)
        if len(secret) < needed:
            raise ValueError(f"a secret for {names} takes at least {needed} bytes")
    return names
