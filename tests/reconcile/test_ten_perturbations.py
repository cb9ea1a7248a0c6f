"""Real traffic with every fault in it, the provider's own invoice over HTTP, and ten things wrong.

A month at the loopback provider: the suite's scenarios of failures, retries and broken streams on
one day, plain calls on others. Its invoice comes through the importer. Then the invoice is changed
in ten ways at once, each in a place of its own: reconcile names every cause, to the pico-dollar.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

import costspan
from costspan.conformance.drivers.manual import Manual
from costspan.conformance.drivers.meter import Meter
from costspan.conformance.provider import LoopbackProvider, contract_toml
from costspan.conformance.suite.driver import Ask, Who
from costspan.conformance.suite.needs import needed
from costspan.conformance.suite.play import play
from costspan.conformance.suite.script import Call, shipped
from costspan.core.drain import drain
from costspan.core.invoices.document import Order
from costspan.core.invoices.importing import keep
from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.reconcile import Reconciliation, Variance, reconcile
from costspan.core.reconcile.authority import parse
from costspan.core.settle.ledger import Ledger, open_url
from costspan.plugins.invoices.openai import import_invoice

PERIOD = "2026-03"
TEN_YEARS_SECONDS = 10 * 365 * 86_400
STRICT = parse('[threshold.money]\nabsolute = "0"\nrelative = "0"\n')
FAULTS = "C01 C05 C10 C11 C15 C16 F01 F02 F03 F06 F08 F09 F10 F15 F16 S01 S02 S03 S06 S07 M01 M08"
MINI = """
[[price]]
model = "gpt-4o-mini"
effective_to = 2026-03-20
input = "0.15"
output = "0.60"
cache_read = "0.075"

[[price]]
model = "gpt-4o-mini"
effective_from = 2026-03-20
input = "0.10"
output = "0.40"
cache_read = "0.05"
"""
USD = 10**12


class Clock:
    """The time at the provider and at its callers."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def turn(self, text: str) -> None:
        self.now = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


CLOCK = Clock()


class Dated(Meter):
    """Meters at the provider's time."""

    def intent(self) -> dict[str, Any]:
        return {**super().intent(), "started_at": CLOCK()}

    def result(self) -> dict[str, Any]:
        return {**super().result(), "ended_at": CLOCK()}


class Shop(Manual):
    meter = Dated


@dataclass
class Books:
    """The settled ledger, and the provider's invoice as it was imported."""

    ledger: Ledger
    costs: Invoice
    usage: Invoice

    def lines(self, invoice: Invoice) -> list[InvoiceLine]:
        return list(self.ledger.invoices.lines(invoice.id))

    def replace(self, invoice: Invoice, lines: list[InvoiceLine]) -> None:
        """The next version of a document, with other lines."""
        raw = msgspec.json.encode(lines)
        id = hashlib.sha256(raw).hexdigest()
        numbered = [
            msgspec.structs.replace(line, invoice=id, number=number)
            for number, line in enumerate(lines)
        ]
        self.ledger.invoices.keep(msgspec.structs.replace(invoice, id=id), numbered, raw)

    def compare(self) -> Reconciliation:
        return reconcile(self.ledger, PERIOD, STRICT)


def traffic(driver: Shop, provider: LoopbackProvider) -> None:
    """The month: faults on the 2nd, and plain days for what will be wrong on the invoice."""
    CLOCK.turn("2026-03-02T12:00:00")
    scenarios = {scenario.id: scenario for scenario in shipped()}
    for id in FAULTS.split():
        driver.begin(needed(scenarios[id], "sync"))
        played = play(scenarios[id], "sync", driver)
        driver.end()
        assert not played.problems
    with costspan.attribute("acme"):
        Dated(Ask(Call("gpt-4o"), [], Who("acme")), _first_try())  # a call that never ends
    for day in (*range(4, 13), 18):
        CLOCK.turn(f"2026-03-{day:02}T12:00:00")
        for tenant, tokens in (("acme", 1000), ("globex", 3000)):
            ask(driver, tenant, "gpt-4o", f"in={tokens} out=200 cached=100")
            ask(driver, tenant, "gpt-4o-mini", f"in={tokens} out=500")
    CLOCK.turn("2026-03-05T13:00:00")
    ask(driver, "acme", "gpt-4o", "in=2000 out=300", tier="priority")
    CLOCK.turn("2026-03-06T13:00:00")
    for _ in range(3):  # a client tries again by itself, below the instrument
        post(provider, "gpt-4o", "in=700 out=70")
    CLOCK.turn("2026-03-11T13:00:00")
    post(provider, "in-house-7", "in=5000 out=900")  # a caller that nobody instrumented


def _first_try() -> Any:
    from costspan.conformance.drivers.meter import Try

    return Try("gpt-4o", 1, True, [])


def ask(driver: Shop, tenant: str, model: str, says: str, tier: str | None = None) -> None:
    with costspan.attribute(tenant):
        messages = [{"role": "user", "content": f"[[{says} tenant={tenant}]]"}]
        driver.ask(Ask(Call(model, tier=tier), messages, Who(tenant)))


def post(provider: LoopbackProvider, model: str, says: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": f"[[{says}]]"}]}
    httpx.post(f"{provider.base_url}/chat/completions", json=body).raise_for_status()


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("month")
    contract = folder / "contract.toml"
    contract.write_text(contract_toml(without=["gpt-4o-mini"]) + MINI, "utf-8")
    settings = costspan.configure(
        ledger=folder / "ledger.db",
        spool=folder / "spool",
        prices=contract,
        open_ttl=TEN_YEARS_SECONDS,
        background=False,
    )
    with pytest.MonkeyPatch.context() as patch, LoopbackProvider(clock=CLOCK) as provider:
        patch.setenv("OPENAI_ADMIN_KEY", "admin")
        driver = Shop()
        driver.open(provider, folder)
        traffic(driver, provider)
        driver.close()
        assert provider.wait_idle()
        costspan.flush()
        drain(settings)
        CLOCK.turn("2026-04-10T00:00:00")
        ledger = open_url(settings.ledger_url, create=False)
        order = Order(place="openai", raw=None, at=CLOCK(), period=PERIOD, base_url=provider.url)
        costs, usage = [
            keep(ledger.invoices, document, order, by="test", at=CLOCK())[0].invoice
            for document in import_invoice(order) or ()
        ]
        assert provider.bugs == ()
        total = sum(row.cost_pico for row in provider.truth)
    books = Books(ledger, costs, usage)
    assert sum(line.amount for line in books.lines(costs)) == total
    yield books
    ledger.close()


def named(found: Reconciliation) -> dict[tuple[str, str, str], int]:
    """(day, model, cause) -> pico-USD; what nothing explains as "unexplained"."""
    said: dict[tuple[str, str, str], int] = {}
    for each in found.variances:
        assert each.explained + each.unexplained == each.difference
        if not each.is_money:
            continue
        for cause in each.causes:
            key = (each.grain.day, each.grain.model, cause.kind)
            said[key] = said.get(key, 0) + cause.amount
        if each.unexplained:
            said[each.grain.day, each.grain.model, "unexplained"] = each.unexplained
    return said


def test_the_faults_of_the_traffic_explain_every_difference_of_the_honest_invoice(
    settled: Books,
) -> None:
    found = settled.compare()
    said = named(found)
    assert {key[::2] for key in said} == {
        ("2026-03-02", "open"),
        ("2026-03-02", "unknown_stream"),
        ("2026-03-02", "missing_usage"),
        ("2026-03-06", "silent_retry"),
        ("2026-03-11", "outside_path"),
    }
    (total,) = found.totals
    assert total.difference == total.explained > 0


RATES = {
    "gpt-4o": {"input": 2_500_000, "output": 10_000_000},
    "gpt-4o-mini from the 20th": {"input": 100_000, "output": 400_000},
    "gpt-4o-mini": {"input": 150_000, "output": 600_000},
    "in-house-7": {"input": 1_000_000, "output": 2_000_000},
}
"""pico-USD a token."""
SHIFTED = {"input": 3000, "output": 500}
"""The call that stands on the next day."""
TAX, CREDIT = 3 * USD, -USD


def is_of(line: InvoiceLine, day: int, model: str = "", component: str = "") -> bool:
    name = (line.model or "").removesuffix("-2024-08-06").removesuffix("-2024-07-18")
    return (
        line.day == f"2026-03-{day:02}"
        and model in ("", name)
        and component in ("", line.component)
    )


def priced(line: InvoiceLine, rates: str) -> int:
    """What the quantity of a line costs at some rates."""
    return (line.quantity or 0) * RATES[rates][line.component]


def cost(rates: str, **usage: int) -> int:
    return sum(RATES[rates][component] * many for component, many in usage.items())


def billed(lines: list[InvoiceLine], day: int, model: str) -> int:
    return sum(line.amount for line in lines if is_of(line, day, model))


def perturbed(line: InvoiceLine) -> InvoiceLine | None:
    """What is wrong with a line of cost or usage; None if it is missing."""
    change = msgspec.structs.replace
    if is_of(line, 4):  # a missing day
        return None
    if is_of(line, 5) and line.tier == "priority" and line.amount:  # a tier priced wrong
        return change(line, amount=priced(line, "gpt-4o"))
    if is_of(line, 7, "gpt-4o"):  # cents for dollars
        return change(line, amount=line.amount * 100)
    if is_of(line, 18, "gpt-4o-mini") and line.amount:  # the price of the 20th, early
        return change(line, amount=priced(line, "gpt-4o-mini from the 20th"))
    sign = is_of(line, 10, "gpt-4o-mini") - is_of(line, 9, "gpt-4o-mini")
    if sign and line.requests is not None:  # the edge of a day
        return change(line, requests=line.requests + sign)
    if sign and line.quantity is not None:
        many = sign * SHIFTED[line.component]
        money = many * RATES["gpt-4o-mini"][line.component] if line.amount else 0
        return change(line, quantity=line.quantity + many, amount=line.amount + money)
    return line


def apart(like: InvoiceLine, category: str, amount: int, description: str) -> InvoiceLine:
    """A line that is no usage."""
    facts = {"category": category, "amount": amount, "description": description}
    blank = {"model": None, "component": "", "tier": None, "quantity": None, "unit": None}
    return msgspec.structs.replace(like, day="2026-03-31", **blank, **facts)


def test_ten_perturbations_are_each_named_with_the_exact_amount(settled: Books) -> None:
    before = named(settled.compare())
    honest = settled.lines(settled.costs)
    costs = [line for line in map(perturbed, honest) if line is not None]
    usage = [line for line in map(perturbed, settled.lines(settled.usage)) if line is not None]
    costs += [line for line in costs if is_of(line, 8, "gpt-4o", "output")]  # a duplicated line
    costs += [apart(costs[0], "tax", TAX, "VAT 19 %"), apart(costs[0], "credit", CREDIT, "sorry")]
    settled.replace(settled.costs, costs)
    settled.replace(settled.usage, usage)

    found = settled.compare()

    shifted = cost("gpt-4o-mini", **SHIFTED)
    expected = {
        ("2026-03-04", "gpt-4o", "missing_day"): -billed(honest, 4, "gpt-4o"),
        ("2026-03-04", "gpt-4o-mini", "missing_day"): -billed(honest, 4, "gpt-4o-mini"),
        ("2026-03-05", "gpt-4o", "price"): cost("gpt-4o", input=2000, output=300)
        - (2000 * 4_250_000 + 300 * 17_000_000),
        ("2026-03-06", "gpt-4o", "silent_retry"): 3 * cost("gpt-4o", input=700, output=70),
        ("2026-03-07", "gpt-4o", "cents_for_dollars"): 99 * billed(honest, 7, "gpt-4o"),
        ("2026-03-08", "gpt-4o", "duplicate_line"): cost("gpt-4o", output=400),
        ("2026-03-09", "gpt-4o-mini", "day_edge"): -shifted,
        ("2026-03-10", "gpt-4o-mini", "day_edge"): shifted,
        ("2026-03-11", "in-house-7", "outside_path"): cost("in-house-7", input=5000, output=900),
        ("2026-03-18", "gpt-4o-mini", "price"): cost(
            "gpt-4o-mini from the 20th", input=4000, output=1000
        )
        - cost("gpt-4o-mini", input=4000, output=1000),
        ("2026-03-31", "", "tax"): TAX,
        ("2026-03-31", "", "credit"): CREDIT,
    }
    faults = {key: amount for key, amount in before.items() if key[0] == "2026-03-02"}
    assert named(found) == {**faults, **expected}
    assert "the price of gpt-4o standard tier" in text_of(found, "2026-03-05")
    assert "(priority): 4.25 per 1M in the books, 2.50 billed" in text_of(found, "2026-03-05")
    assert "the price of gpt-4o-mini standard tier from 2026-03-20" in text_of(found, "2026-03-18")
    assert "3 more request(s) were billed" in text_of(found, "2026-03-06")
    (total,) = found.totals
    assert total.difference == total.explained
    assert total.apart == {"tax": TAX, "credit": CREDIT}
    assert requests_of(found) == {"2026-03-06": 3, "2026-03-09": -1, "2026-03-10": 1}


def text_of(found: Reconciliation, day: str) -> str:
    return "; ".join(cause.text for each in money(found, day) for cause in each.causes)


def money(found: Reconciliation, day: str) -> list[Variance]:
    return [each for each in found.variances if each.what == "money" and each.grain.day == day]


def requests_of(found: Reconciliation) -> dict[str, int]:
    """Day -> requests that are too many or too few, where neither side lacks the day or model."""
    return {
        each.grain.day: each.difference
        for each in found.variances
        if each.what == "requests"
        and each.grain.day in ("2026-03-06", "2026-03-07", "2026-03-09", "2026-03-10")
    }
