"""Ready-made resolvers for `AttributionMiddleware(resolve=…)`: who has authenticated this request.

    app.add_middleware(AttributionMiddleware, resolve=api_keys({"sk-1": "acme"}))

Each reads what somebody vouches for (a secret, a signature, a proxy that is named, the application)
and gives an `Owner`, or None. A credential that is refused is counted by its reason; a request
without one is merely anonymous. The middleware judges tenant ids whole: never cut, never folded.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from inspect import iscoroutinefunction
from operator import attrgetter
from typing import Any, TypeAlias
from uuid import UUID

from costspan.adapters.asgi.middleware import Later, Owner, Resolved, Scope
from costspan.core.clean import tenant_id
from costspan.core.counters import count

__all__ = ["Resolver", "api_keys", "credential", "first_of", "from_user", "trusted_header"]

Resolver: TypeAlias = Callable[[Scope], Resolved]

DIGEST_PREFIX = "sha256:"
_DIGEST = re.compile("[0-9a-f]{64}")


def api_keys(
    keys: Mapping[str, Owner | str] | Callable[[str], Owner | str | None],
    *,
    header: str = "authorization",
    scheme: str | None = "bearer",
) -> Resolver:
    """Whose API key the request carries.

    Args:
        keys: Key -> owner (or its tenant id). Only the SHA-256 of a key is kept and compared, so
            neither memory nor timing gives a key away; a key may also be given as
            `sha256:HEXDIGEST`, and then never stands in a configuration at all. Or a function that
            is given the key: it is called in the event loop, so it should look into memory.
        header: The header that carries the key.
        scheme: The word before the key (`Bearer`), in any case; None if the header is the key.

    Raises:
        ValueError: for an empty or repeated key, a digest that is none, or an invalid tenant.
    """
    ask = keys if callable(keys) else _digested(keys).get
    is_plain = callable(keys)

    def resolve(scope: Scope) -> Resolved:
        key = credential(scope, header, scheme, "api_key_refused")
        if key is None:
            return None
        owner = ask(key.decode("latin-1") if is_plain else hashlib.sha256(key).hexdigest())
        if owner is None:
            count("api_key_refused:unknown")
        return owner

    return resolve


def _digested(keys: Mapping[str, Owner | str]) -> dict[str, Owner | str]:
    """The owners by the SHA-256 of their keys."""
    owners: dict[str, Owner | str] = {}
    for key, owner in keys.items():
        tenant_id(owner.tenant if isinstance(owner, Owner) else owner)
        digest = hashlib.sha256(key.encode()).hexdigest()
        if key.startswith(DIGEST_PREFIX):
            digest = key.removeprefix(DIGEST_PREFIX).lower()
            if not _DIGEST.fullmatch(digest):
                raise ValueError("sha256: takes the 64 hex digits of a key's digest")
        if not key or digest in owners:
            raise ValueError("an API key is empty or given twice")
        owners[digest] = owner
    return owners


def credential(scope: Scope, header: str, scheme: str | None, counter: str) -> bytes | None:
    """What the request's only such header carries; None without one, or with another scheme.

    Two headers are two identities: neither is taken, and `counter` says so.
    """
    value = _only(scope, header.lower().encode(), counter)
    if value is None or scheme is None:
        return value or None
    word, _, rest = value.partition(b" ")
    if word.lower() != scheme.lower().encode():
        return None
    return rest.strip() or None


def _only(scope: Scope, name: bytes, counter: str) -> bytes | None:
    values = [value for each, value in scope.get("headers", ()) if each.lower() == name]
    if len(values) > 1:
        count(f"{counter}:repeated")
        return None
    return values[0] if values else None


def trusted_header(name: str, *, peers: Iterable[str]) -> Resolver:
    """The tenant that a reverse proxy names in a header of its own.

    The header counts only from a peer that is listed: the address the connection itself comes from,
    never `X-Forwarded-For`. A server that puts what that header says in the address's place
    (uvicorn does, unless started with `--no-proxy-headers`) hides the peer: such requests are
    refused too. The proxy must overwrite what clients send under this name.

    Args:
        name: The header, US-ASCII text of one tenant id.
        peers: Networks (`10.1.0.0/16`, `::1`) and, for a server on a Unix socket, `unix`.

    Raises:
        ValueError: for no peers, for what is no network, and for everybody (`0.0.0.0/0`).
    """
    listed = set(peers)
    networks = [ipaddress.ip_network(each) for each in listed - {"unix"}]
    if not listed or not all(network.prefixlen for network in networks):
        raise ValueError("trusted_header needs the peers that may be believed, and not everybody")
    is_listed = lru_cache(1024)(partial(_is_within, networks))
    key = name.lower().encode()

    def resolve(scope: Scope) -> Resolved:
        value = _only(scope, key, "identity_header_refused")
        if not value:
            return None
        client = scope.get("client")
        if client is not None and _is_rewritten(scope, client):
            count("identity_header_refused:peer_hidden")
            return None
        if not ("unix" in listed if client is None else is_listed(client[0])):
            count("identity_header_refused:peer")
            return None
        if b"," in value:  # how proxies fold two headers into one
            count("identity_header_refused:repeated")
            return None
        return value.decode("ascii", "surrogateescape")  # a surrogate makes it no tenant id

    return resolve


def _is_within(networks: Sequence[Any], host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def _is_rewritten(scope: Scope, client: Sequence[Any]) -> bool:
    """Whether the server took the client's address from a header.

    What is taken from there has no port (0), or one that stands there too. The host alone may stand
    there of a client's own will, who must not be able to lose its requests their tenant.
    """
    host, port = client[0], client[1]
    if not port:
        return True
    taken = (f"{host}:{port}".encode(), f"[{host}]:{port}".encode())
    return any(
        name.lower() in (b"x-forwarded-for", b"forwarded") and any(each in value for each in taken)
        for name, value in scope["headers"]
    )


def from_user(
    tenant: str | Callable[[Any], Owner | str | None],
    *,
    session: str | None = None,
    user: str | None = None,
) -> Resolver:
    """The tenant of the user whom Starlette's `AuthenticationMiddleware` authenticated.

    It reads `scope["user"]`, so the order to choose is authentication outside of attribution. The
    other order works too: the user is then read from the request's scope as soon as a call is made
    or an owner asked for, and such a user may not be a delegate (see `Later`).

    Args:
        tenant: The attribute that is the tenant id (`organisation.id`), or a function of the user.
        session: The attribute that is the session, if any.
        user: The attribute that is the user's id, if any.
    """
    read_tenant = attrgetter(tenant) if isinstance(tenant, str) else tenant

    def resolve(scope: Scope) -> Resolved:
        if "user" not in scope:
            return Later(partial(resolve, scope))
        found = scope["user"]
        if found is None or not getattr(found, "is_authenticated", False):
            return None
        try:
            owner = read_tenant(found)
            if owner is None or isinstance(owner, Owner):
                return owner
            return Owner(_id(owner), session=_named(found, session), user=_named(found, user))
        except AttributeError:
            count("user_refused:attribute_missing")
            return None

    return resolve


def _named(found: Any, path: str | None) -> str | None:
    """The id under an attribute path; None where there is none to read."""
    value = None if path is None else _id(attrgetter(path)(found))
    return value if isinstance(value, str) else None


def _id(value: Any) -> Any:
    """An id as its text; of anything else, which has no text that stays, itself."""
    return str(value) if isinstance(value, UUID) or type(value) is int else value


def first_of(*resolvers: Resolver) -> Resolver:
    """The first of these that names a tenant, in this order; else the first that knows a user.

    Raises:
        TypeError: for an async resolver: the ones here are asked in turn, without waiting.
    """
    if any(map(iscoroutinefunction, resolvers)):
        raise TypeError("first_of takes resolvers that are not async")

    def resolve(scope: Scope) -> Resolved:
        return _first([partial(each, scope) for each in resolvers])

    return resolve


def _first(questions: Sequence[Callable[[], Resolved]], partly: Resolved = None) -> Resolved:
    for number, ask in enumerate(questions, start=1):
        answer = ask()
        if isinstance(answer, Later):
            return Later(partial(_first, [answer.again, *questions[number:]], partly))
        if isinstance(answer, str) or (answer is not None and answer.tenant is not None):
            return answer
        partly = partly or answer
    return partly
