"""A charge book comes into force like rules and prices: by the settings, from then on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from costspan.core.config import Config, ConfigError, load
from costspan.core.journal.records import Policy, control_payload, decode
from costspan.core.money import PICO
from costspan.core.policy import ahead_of_clock, propose
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


def set_to(ledger: Ledger, settings: Config, now_ns: int = 10**9) -> list[Policy]:
    with ledger.settling(1) as settlement:
        policies = propose(settlement, settings, now_ns)
        settle(settlement, [], policies)
    return policies


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
        [first] = set_to(ledger, config(tmp_path, "2", 10))
        assert first.charges is not None
        assert charge_of(ledger, 1, 5) == 2 * PICO
        assert set_to(ledger, config(tmp_path, "2", 20)) == []
        [second] = set_to(ledger, config(tmp_path, "3", 30))
        assert second.effective_from == 30
        assert [charge_of(ledger, 2, 29), charge_of(ledger, 3, 30)] == [2 * PICO, 3 * PICO]
        silent = Config(ledger=":memory:", spool=tmp_path, since_ns=40)
        assert set_to(ledger, silent) == []
        assert charge_of(ledger, 4, 41) == 3 * PICO  # who says nothing changes nothing
        with closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=True)) as new:
            copy_books(ledger, new)
            assert nets(new) == nets(ledger)
            assert new.charge_books().keys() == {first.charges, second.charges}


def test_a_clock_that_ran_ahead_holds_nobodys_settings_up(tmp_path: Path) -> None:
    hour = 3600 * 10**9
    with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
        set_to(ledger, config(tmp_path, "2", 10))
        [ahead] = set_to(ledger, config(tmp_path, "7", 5 * hour), now_ns=5 * hour)
        assert ahead_of_clock(ledger.reading().policies(), hour) == [ahead]
        silent = Config(ledger=":memory:", spool=tmp_path, since_ns=hour)
        assert set_to(ledger, silent, hour) == []  # who says nothing takes nothing back
        said = set_to(ledger, config(tmp_path, "3", hour), hour)
        assert [each.effective_from for each in said] == [hour, 5 * hour]
        assert ahead_of_clock(ledger.reading().policies(), hour) == []
        assert set_to(ledger, config(tmp_path, "3", hour + 1), hour + 1) == []
        charged = [charge_of(ledger, 1, hour - 1), charge_of(ledger, 2, hour)]
        charged += [charge_of(ledger, 3, 5 * hour), charge_of(ledger, 4, 6 * hour)]
        assert charged == [2 * PICO, 3 * PICO, 3 * PICO, 3 * PICO]


def test_what_holds_already_is_made_to_hold_where_a_wrong_clock_said_otherwise(
    tmp_path: Path,
) -> None:
    hour = 3600 * 10**9
    with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
        set_to(ledger, config(tmp_path, "2", 10))
        set_to(ledger, config(tmp_path, "7", 5 * hour), now_ns=5 * hour)
        [again] = set_to(ledger, config(tmp_path, "2", hour), hour)
        assert again.effective_from == 5 * hour
        assert charge_of(ledger, 1, 6 * hour) == 2 * PICO


def test_clocks_that_differ_by_seconds_do_not_take_turns(tmp_path: Path) -> None:
    now = 10**12
    with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
        set_to(ledger, config(tmp_path, "2", 10))
        [newer] = set_to(ledger, config(tmp_path, "3", now + 9 * 10**9), now + 9 * 10**9)
        assert set_to(ledger, config(tmp_path, "2", now), now) == []
        assert ahead_of_clock(ledger.reading().policies(), now) == []
        assert charge_of(ledger, 1, newer.effective_from) == 3 * PICO


def test_a_clock_that_was_set_back_is_asked_again(tmp_path: Path) -> None:
    """A process that started before it was: its settings hold from now on, not one day."""
    hour = 3600 * 10**9
    with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
        set_to(ledger, config(tmp_path, "2", 10))
        [said] = set_to(ledger, config(tmp_path, "3", 9 * hour), now_ns=hour)
        assert said.effective_from == hour


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
