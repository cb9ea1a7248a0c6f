"""A signed context that a request came with, and when it is believed.

    app.add_middleware(
        AttributionMiddleware,
        resolve=service_of,                                # Owner("gateway", may_delegate=True)
        signed=SignedContext(keys, may_act_for={"gateway": ["acme", "beta"]}),
    )

| who presents it | what the context names | then |
|---|---|---|
| a principal that may not delegate | its own tenant | session and lineage |
| | another tenant | nothing, `signed_disagreement` |
| | no tenant | nothing, `signed_not_covered` |
| a delegate | its own tenant, or one it may act for | tenant, session and lineage |
| | anything else | nothing, `signed_not_covered` |
| nobody authenticated | anything | nothing, `signed_without_principal` (unless allowed) |

What is refused stays on the request as `client_claims`, which decide nothing. So a captured context
that is replayed beside another principal changes nothing but that evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from costspan.adapter import Context
from costspan.carrier import HEADER, Keys, Signed, from_carrier
from costspan.core.clean import tenant_id
from costspan.core.context import derive
from costspan.core.counters import count

if TYPE_CHECKING:
    from costspan.adapters.asgi.middleware import Owner, Scope

__all__ = ["Presented", "SignedContext"]

_HEADER = HEADER.encode()

MayActFor: TypeAlias = "Callable[[Owner, str | None], bool] | Mapping[str, Collection[str]]"


class SignedContext:
    """What the middleware needs to believe the signed contexts of other services.

    Args:
        keys: The keys that verify them.
        audience: The name they must be made for; any of the keys' audiences unless given.
        may_act_for: For whom a delegate may speak: a delegate's own tenant -> those tenants; or a
            function of the delegate and the tenant. The function is also asked about None: a
            context without a tenant, whose parent or session may lead to any.
        accept_without_principal: Believe a signed context beside which nobody is authenticated.
            Only where the network itself admits no stranger: mutual TLS, a private network.

    Raises:
        TypeError: if `may_act_for` is an async function.
        Invalid: if it maps to something that is no tenant id.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        audience: str | None = None,
        may_act_for: MayActFor | None = None,
        accept_without_principal: bool = False,
    ) -> None:
        self._keys = keys
        self._audience = audience
        self._accept_without_principal = accept_without_principal
        self._asked: Callable[[Owner, str | None], bool] | None = None
        self._covered: dict[str, frozenset[str]] = {}
        if callable(may_act_for):
            if iscoroutinefunction(may_act_for):
                raise TypeError("may_act_for must answer at once: it cannot be an async function")
            self._asked = may_act_for
            return
        for delegate, tenants in (may_act_for or {}).items():
            names = [tenants] if isinstance(tenants, str) else tenants
            self._covered[tenant_id(delegate)] = frozenset(map(tenant_id, names))

    def take(self, scope: Scope) -> Presented | None:
        """Take the signed context out of a request, so that the application cannot pass it on.

        None if there is none, or none that is genuine (counted, see `costspan.from_carrier`).
        """
        headers: Collection[tuple[bytes, bytes]] = scope.get("headers", ())
        found = [(HEADER, value) for name, value in headers if name.lower() == _HEADER]
        if not found:
            return None
        scope["headers"] = [pair for pair in headers if pair[0].lower() != _HEADER]
        signed = from_carrier(found, self._keys, audience=self._audience)
        return None if signed is None else Presented(self, signed)

    def refusal(self, owner: Owner | None, own_tenant: str | None, named: str | None) -> str | None:
        """Why a context that names `named` is not believed from `owner`; None if it is."""
        if owner is None:
            return None if self._accept_without_principal else "signed_without_principal"
        if named is not None and named == own_tenant:
            return None
        if not owner.may_delegate and named is not None:
            return "signed_disagreement"
        if owner.may_delegate and self._covers(owner, own_tenant, named):
            return None
        return "signed_not_covered"

    def _covers(self, owner: Owner, own_tenant: str | None, named: str | None) -> bool:
        if self._asked is None:
            return named is not None and named in self._covered.get(own_tenant or "", ())
        try:
            answer = cast("object", self._asked(owner, named))
        except Exception:
            count("may_act_for_failed")
            return False
        return answer is True  # whatever else is truthy was not meant as a permission


class Presented:
    """A genuine signed context in one request, and whether it is believed there."""

    __slots__ = ("_believed", "_signed", "_terms")

    def __init__(self, terms: SignedContext, signed: Signed) -> None:
        self._terms = terms
        self._signed = signed
        self._believed = False

    def judge(self, owner: Owner | None, context: Context, *, is_recorded: bool) -> Context:
        """The context of the request once this is believed or refused.

        Args:
            owner: Who was authenticated.
            context: What that owner alone makes of the request.
            is_recorded: Whether the request itself is recorded, and so stands between the signed
                parent and what runs here.
        """
        signed = self._signed
        refused = self._terms.refusal(owner, context.tenant, signed.tenant)
        if refused is not None:
            count(refused)
            return context
        self._believed = True
        changes: dict[str, Any] = {}
        acts_for_another = owner is None or owner.may_delegate
        if acts_for_another:
            # A delegate's own session and user are none of the tenant's that it acts for.
            changes.update(session=None, session_origin=None, user=None)
            if context.holder is not None:
                context.holder.session = context.holder.user = None
            if signed.tenant is not None:
                changes.update(tenant=signed.tenant, tenant_source="signed")
        if signed.session is not None and (acts_for_another or context.session is None):
            changes.update(session=signed.session, session_origin="signed")
        if not is_recorded and signed.parent is not None:
            changes.update(parent=signed.parent, parent_origin="signed")
        return derive(context, **changes)

    def request_facts(self, context: Context) -> dict[str, Any]:
        """What the request's own observation says of this: its parent, or a claim."""
        signed = self._signed
        tenant, _ = context.owner()
        if self._believed and tenant == context.tenant:
            return {"parent": signed.parent, "parent_origin": signed.parent and "signed"}
        if self._believed:  # until `bind` named somebody else
            count("signed_disagreement")
        claims = {
            "issuer": signed.issuer,
            "tenant": signed.tenant,
            "session": signed.session,
            "parent": signed.parent,
        }
        return {"client_claims": {"signed": {k: v for k, v in claims.items() if v is not None}}}
