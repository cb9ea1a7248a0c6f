"""A charge book comes into force like rules and prices: by the settings, from then on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from costspan.core.config import Config, ConfigError, load
from costspan.core.journal.records import Policy, control_payload, decode
from costspan.core.money import PICO
from costspan.core.policy import propose
from costspan.core.prices import PriceBook
from costspan.core.rebuild import copy_books, nets
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

CHARGE = '[[charge]]\ntenant = "acme"\nfactor = "{}"\n'


def config(tmp_path: Path, factor: str, since_ns: int, **fields: Any) -> Config:
    path = tmp_path / "charges.toml"
    path.write_text(CHARGE.format(factor), "utf-8")
    return Config(ledger=":memory:", spool=tmp_path, charges=path, since_ns=since_ns, **fields)


def set_to(ledger: Ledger, settings: Config) -> Policy | None:
    with ledger.settling(1) as settlement:
        policy = propose(settlement, settings)
        settle(settlement, [], [policy] if policy is not None else [])
    return policy


def charge_of(ledger: Ledger, number: int, started_at: int) -> int:
    """What a call that cost a dollar is charged."""
    seen = Observation(
        oid=f"w:{number}", attempt_id=f"a{number}", writer="w", seq=number, tenant="acme",
        tenant_source="principal", cause="primary", initiator="user", provider_result="ok",
        flat_cost="1", started_at=started_at,
    )  # fmt: skip
    with ledger.settling(1) as settlement:
        settle(settlement, [seen])
    (each,) = ledger.events([f"a{number}"])
    assert each.decision is not None
    assert each.decision.charge is not None
    return each.decision.charge


def test_from_when_it_is_set_and_never_before(tmp_path: Path) -> None:
    with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
        first = set_to(ledger, config(tmp_path, "2", 10))
        assert first is not None
        assert first.charges is not None
        assert charge_of(ledger, 1, 5) == 2 * PICO
        assert set_to(ledger, config(tmp_path, "2", 20)) is None
        second = set_to(ledger, config(tmp_path, "3", 30))
        assert second is not None
        assert second.effective_from == 30
        assert [charge_of(ledger, 2, 29), charge_of(ledger, 3, 30)] == [2 * PICO, 3 * PICO]
        silent = Config(ledger=":memory:", spool=tmp_path, since_ns=40)
        assert set_to(ledger, silent) is None
        assert charge_of(ledger, 4, 41) == 3 * PICO  # who says nothing changes nothing
        with closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=True)) as new:
            copy_books(ledger, new)
            assert nets(new) == nets(ledger)
            assert new.charge_books().keys() == {first.charges, second.charges}


def test_a_policy_without_one_is_written_as_ever() -> None:
    plain = Policy("r" * 64, (), 5, "test")
    assert b"charges" not in control_payload(plain)
    with_one = Policy("r" * 64, (), 5, "test", "c" * 64)
    assert decode(control_payload(with_one), None) == with_one
    assert decode(control_payload(plain), None) == plain


def test_the_setting_is_a_file_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTSPAN_CHARGES", str(tmp_path / "of-the-environment.toml"))
    assert load().charges == tmp_path / "of-the-environment.toml"
    settings = load({"charges": tmp_path / "missing.toml"})
    with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
        with pytest.raises(ConfigError, match=r"charges: .*missing.toml: cannot be read"):
            set_to(ledger, settings)
        assert ledger.reading().policies() == []


def test_what_is_priced_each_is_written_in_one_unit(tmp_path: Path) -> None:
    """A contract file and the loopback provider's own list mean the same by the same text."""
    from costspan.conformance.provider.contract import contract_toml
    from costspan.conformance.provider.prices import PriceList
    from costspan.core.prices import Prices
    from costspan.core.prices.contract import load as load_contract

    rates = {"m": {"input": "3", "output": "15", "web_searches": "0.01"}}
    path = tmp_path / "contract.toml"
    path.write_text(contract_toml(rates, {}), "utf-8")
    usage = {"input": 10, "output": 5, "web_searches": 3}
    match = Prices([load_contract(path)]).find("m")
    assert match is not None
    assert match.cost(usage) == PriceList(rates, {}).cost("m", "default", usage).pico
    searches = PriceBook.from_table("b", rates)
    assert searches.rows[0].rates["web_searches"] == "0.01"
