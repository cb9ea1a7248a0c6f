"""The coarsest common grain: what both sides can say of an account, a day and a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from costspan.core.invoices.invoice import InvoiceLine
from costspan.core.reconcile.billed import Bill, account_of
from costspan.core.reconcile.naming import Models, Rows
from costspan.core.reconcile.recorded import Place, Recorded
from costspan.core.reconcile.variance import Grain


class Shape:
    """Which grain each provider is compared at, and where an event or a line stands in it.

    By account, if every event and every line says one and at least one name is common; by day, if
    every line says one; by model, but what a line bills without a model is compared as an item
    over all models.
    """

    def __init__(
        self, places: Iterable[Place], bill: Bill, models: Models, accounts: Mapping[str, str]
    ) -> None:
        self._bill = bill
        self._models = models
        self._accounts = accounts
        named: dict[str, set[str]] = {}
        for place in places:
            named.setdefault(self.provider_of(place), set()).add(self._account(place))
        self._by_account = {
            provider
            for provider, theirs in bill.accounts.items()
            if "" not in theirs | named.get(provider, {""}) and theirs & named[provider]
        }

    def provider_of(self, place: Place) -> str:
        """Who bills an event: who it says; else the only provider that bills such a model."""
        if place.provider:
            return place.provider
        found = [name for name, models in self._bill.models.items() if place.model in models]
        return found[0] if len(found) == 1 else ""

    def of_place(self, place: Place) -> Grain | None:
        """Where events of a place are compared; None if no document speaks of their provider."""
        provider = self.provider_of(place)
        if provider not in self._bill.accounts:
            return None
        account = self._account(place) if provider in self._by_account else ""
        day = "" if provider in self._bill.undated else place.day
        model = "" if provider in self._bill.totals_only else place.model
        return Grain(provider, account, day, model, "")

    def of_line(self, line: InvoiceLine, provider: str) -> Grain:
        """Where a line of usage is compared."""
        account = account_of(line) if provider in self._by_account else ""
        day = "" if provider in self._bill.undated else line.day
        item = ""
        if provider not in self._bill.totals_only:
            if line.component and line.component in self._bill.unnamed.get(provider, ()):
                return Grain(provider, account, day, "", line.component)
            item = "" if line.model else line.description or "(no description)"
        return Grain(provider, account, day, self._models.named(line.model, provider), item)

    def put(self, found: Mapping[Place, Recorded], rows: Rows) -> dict[Grain, Recorded]:
        """What was recorded, brought to the grain of comparison."""
        recorded: dict[Grain, Recorded] = {}
        for place, each in found.items():
            grain = self.of_place(place)
            if grain is not None:
                recorded.setdefault(grain, Recorded()).merge(each)
        for grain, each in list(recorded.items()):
            for component in self._bill.unnamed.get(grain.provider, set()) - {""}:
                taken = each.take(component, rows)
                if taken.priced or taken.unpriced:
                    item = grain._replace(model="", item=component)
                    recorded.setdefault(item, Recorded()).merge(taken)
        return recorded

    def _account(self, place: Place) -> str:
        return self._accounts.get(place.account, place.account)
