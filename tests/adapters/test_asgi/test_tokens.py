"""JSON Web Tokens as identities: only what is signed as the operator said, until it expires."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import jwt as pyjwt
import pytest
from asgi_calls import counted
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from costspan.adapters.asgi import Owner, jwt, tokens

SECRET = "a secret that is as long as its hash"
ISSUED = {"aud": "costs", "iss": "https://id.example"}
ELLIPTIC = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("old", "new", "other")}


def token(
    key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: Any
) -> str:
    said = {"tenant": "acme", "sub": "ann", "exp": time.time() + 600, **ISSUED, **claims}
    said = {name: value for name, value in said.items() if value is not None}
    return pyjwt.encode(
        said, key, algorithm=algorithm, headers=None if kid is None else {"kid": kid}
    )


def bearer(encoded: str) -> dict[str, Any]:
    return {"type": "http", "headers": [(b"authorization", b"Bearer " + encoded.encode())]}


def resolver(**how: Any) -> Any:
    fixed = {"audience": "costs", "issuer": "https://id.example", "algorithms": ["HS256"]}
    return jwt(**{**fixed, "key": SECRET, **how})


def test_a_token_names_the_owner() -> None:
    resolve = resolver(session_claim="sid", may_delegate_claim="hub")
    assert resolve(bearer(token())) == Owner("acme", user="ann")
    assert resolve(bearer(token(sid="s1", hub=True))) == Owner(
        "acme", session="s1", user="ann", may_delegate=True
    )
    for claim in ("true", 1, [True]):  # only true is true
        assert resolve(bearer(token(hub=claim))) == Owner("acme", user="ann")


def test_other_claims_and_places_may_be_chosen() -> None:
    resolve = resolver(
        tenant_claim="https://id.example/org", user_claim=None, header="x-id", scheme=None
    )
    scope = {"headers": [(b"x-id", token(**{"https://id.example/org": "beta"}).encode())]}
    assert resolve(scope) == Owner("beta")


FUTURE = time.time() + 10_000
PUBLIC = ELLIPTIC["old"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (token(exp=1), "expired"),
        (token(nbf=FUTURE), "not_yet_valid"),
        (token(iat=FUTURE), "not_yet_valid"),
        (token(aud="others"), "audience"),
        (token(iss="https://evil.example"), "issuer"),
        (token(exp=None), "claim_missing"),
        (token(aud=None), "claim_missing"),
        (token(iss=None), "claim_missing"),
        (token("another secret that is as long as its hash"), "signature"),
        (token()[:-4] + "AAAA", "signature"),
        (token(algorithm="HS384", key=SECRET * 2), "algorithm"),
        (token(ELLIPTIC["other"], "ES256"), "algorithm"),
        (token(None, "none"), "algorithm"),
        ("a.b", "malformed"),
        ("..", "malformed"),
        ("\u20ac", "malformed"),
        ("x" * 20_000, "too_long"),
    ],
)
def test_a_token_that_does_not_hold_is_nobodys_and_counted(encoded: str, reason: str) -> None:
    resolve = resolver()
    for _ in range(2):  # a refusal is not kept, nor forgotten to be counted
        before = counted(f"jwt_refused:{reason}")
        assert resolve(bearer(encoded)) is None
        assert counted(f"jwt_refused:{reason}") == before + 1


def test_two_tokens_are_none() -> None:
    scope = {"headers": bearer(token())["headers"] * 2}
    before = counted("jwt_refused:repeated")
    assert resolver()(scope) is None
    assert counted("jwt_refused:repeated") == before + 1


def test_a_token_without_a_tenant_still_knows_its_user() -> None:
    before = counted("jwt_refused:no_tenant")
    assert resolver()(bearer(token(tenant=None))) == Owner(None, user="ann")
    assert counted("jwt_refused:no_tenant") == before + 1


def test_a_claim_is_never_made_fit() -> None:
    hostile = ["a\r\nb", "x" * 10_000, "\uff41cme", 5, ["acme"]]
    for value in hostile:
        assert resolver()(bearer(token(tenant=value))).tenant == value  # the middleware judges it
    assert resolver()(bearer(token(sub=None, tenant="acme"))).user is None


class Clock:
    """A clock the test moves, for the resolver and for PyJWT alike."""

    def __init__(self) -> None:
        self.moved = 0.0

    def time(self) -> float:
        return time.time() + self.moved


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens PyJWT was asked to verify."""
    asked: list[str] = []
    real = pyjwt.decode

    def decode(encoded: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(encoded)
        return real(encoded, *args, **kwargs)

    monkeypatch.setattr(pyjwt, "decode", decode)
    return asked


def test_a_token_is_verified_once_until_it_expires(
    verified: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = resolver(leeway_seconds=30)
    scope = bearer(token(exp=int(time.time()) + 100))
    first = resolve(scope)
    assert resolve(scope) is first
    assert len(verified) == 1
    clock = Clock()
    monkeypatch.setattr(tokens, "time", clock)
    clock.moved = 129.0 - 1  # within the leeway
    assert resolve(scope) is first
    clock.moved = 131.0
    resolve(scope)
    assert len(verified) == 2


def test_a_token_is_kept_apart_from_every_other(verified: list[str]) -> None:
    resolve = resolver()
    scopes = {name: bearer(token(tenant=name)) for name in ("acme", "beta")}
    for _ in range(2):
        for name, scope in scopes.items():
            assert resolve(scope).tenant == name
    assert len(verified) == 2
    assert resolver()(scopes["acme"]).tenant == "acme"
    assert len(verified) == 3  # another resolver, with keys of its own


def test_the_least_recently_used_token_leaves_first(
    verified: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CACHED_TOKENS_MAX", 2)
    resolve = resolver()
    one, two, three = (bearer(token(tenant=str(number))) for number in range(3))
    for scope in (one, two, one, three, one):
        resolve(scope)
    assert len(verified) == 3
    resolve(two)
    assert len(verified) == 4


# --- public keys


def key_set(*names: str) -> dict[str, Any]:
    keys = [
        {**json.loads(ECAlgorithm.to_jwk(ELLIPTIC[name].public_key())), "kid": name, "alg": "ES256"}
        for name in names
    ]
    return {"keys": keys}


def of_set(jwks: Any, **how: Any) -> Any:
    return resolver(key=None, jwks=jwks, algorithms=["ES256"], **how)


def test_a_key_of_the_set_verifies() -> None:
    resolve = of_set(key_set("old", "new"))
    assert resolve(bearer(token(ELLIPTIC["new"], "ES256", "new"))).tenant == "acme"
    single = of_set(key_set("old"))
    assert single(bearer(token(ELLIPTIC["old"], "ES256"))).tenant == "acme"


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (token(ELLIPTIC["other"], "ES256", "other"), "key"),
        (token(ELLIPTIC["other"], "ES256"), "key"),
        (token(ELLIPTIC["other"], "ES256", "new"), "signature"),
        (token(SECRET, "HS256", "new"), "algorithm"),
    ],
)
def test_a_key_that_is_not_of_the_set_is_refused(encoded: str, reason: str) -> None:
    before = counted(f"jwt_refused:{reason}")
    assert of_set(key_set("old", "new"))(bearer(encoded)) is None
    assert counted(f"jwt_refused:{reason}") == before + 1


def test_a_key_that_is_taken_back_verifies_no_token_any_more() -> None:
    sets = [key_set("old", "new")]
    resolve = of_set(lambda: sets[-1])
    old, new = (bearer(token(ELLIPTIC[name], "ES256", name)) for name in ("old", "new"))
    assert resolve(old).tenant == resolve(new).tenant == "acme"
    sets.append(key_set("new", "other"))
    before = counted("jwt_refused:key")
    assert resolve(old) is None
    assert resolve(new).tenant == "acme"
    assert counted("jwt_refused:key") == before + 1


def test_the_public_key_is_no_secret() -> None:
    """The classic confusion: a token signed with HMAC, the issuer's public key being the secret."""
    import base64
    import hashlib
    import hmac

    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256"}, {"tenant": "evil", "exp": FUTURE, **ISSUED})
    )
    signature = hmac.digest(PUBLIC, head + b"." + body, hashlib.sha256)
    forged = b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()
    before = counted("jwt_refused:algorithm")
    assert resolver(key=PUBLIC, algorithms=["ES256"])(bearer(forged)) is None
    assert counted("jwt_refused:algorithm") == before + 1


# --- mistakes of the operator


@pytest.mark.parametrize(
    "how",
    [
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"algorithms": ["HS256", "none"]},
        {"algorithms": ["NONE"]},
        {"algorithms": ["HS257"]},
        {"algorithms": ["HS256", "ES256"]},
        {"key": "short"},
        {"algorithms": ["HS512"]},
        {"key": None},
        {"jwks": {"keys": []}},
    ],
)
def test_a_mistake_is_said_at_once(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"jwt|secret"):
        resolver(**how)


@pytest.mark.parametrize("missing", ["algorithms", "audience", "issuer"])
def test_what_a_token_must_say_is_not_left_out_by_chance(missing: str) -> None:
    said: dict[str, Any] = {"algorithms": ["HS256"], "audience": "costs", "issuer": "x"}
    del said[missing]
    with pytest.raises(TypeError, match=missing):
        jwt(key=SECRET, **said)


def test_pyjwt_is_asked_for_only_by_who_needs_it() -> None:
    script = (
        "import sys; sys.modules['jwt'] = None\n"
        "from costspan.adapters.asgi import jwt\n"
        "try: jwt(algorithms=['HS256'], key='k' * 32, audience=None, issuer=None)\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "pip install 'costspan[jwt]'" in done.stdout
