"""The tenant directory: dated rows, parents, and clear words for what does not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from costspan.core.read.directory import Directory, DirectoryError, Entry, last_day, load_directory

TOML = """
[[tenant]]
tenant = "group"
name = "The Group"

[[tenant]]
tenant = "acme"
name = "Acme Ltd"
parent = "group"
cost_centre = "CC-1"
currency = "EUR"
billing_anchor = 15
time_zone = "Europe/Vienna"
to = 2026-11-15

[[tenant]]
tenant = "acme"
name = "Acme Ltd"
cost_centre = "CC-2"
from = "2026-11-15"
"""
CSV = """tenant,name,parent,cost_centre,currency,billing_anchor,time_zone,from,to
group,The Group,,,,,,,
acme,Acme Ltd,group,CC-1,EUR,15,Europe/Vienna,,2026-11-15
acme,Acme Ltd,,CC-2,,,,2026-11-15,
"""


def read(folder: Path, text: str, name: str = "tenants.toml") -> Directory:
    path = folder / name
    path.write_text(text, "utf-8")
    return load_directory(path)


@pytest.mark.parametrize(
    ("text", "name"), [(TOML, "t.toml"), (CSV, "t.csv"), ("\ufeff" + CSV, "t.CSV")]
)
def test_rows_are_in_force_by_whole_days(tmp_path: Path, text: str, name: str) -> None:
    found = read(tmp_path, text, name)
    assert len(found) == 3
    before = Entry(
        tenant="acme", name="Acme Ltd", parent="group", cost_centre="CC-1", currency="EUR",
        billing_anchor="15", time_zone="Europe/Vienna", until="2026-11-15",
    )  # fmt: skip
    after = Entry(tenant="acme", name="Acme Ltd", cost_centre="CC-2", since="2026-11-15")
    assert found.at("acme", "2026-11-14") == before
    assert found.at("acme", "2026-11-15") == after
    assert found.at("nobody", "2026-11-15") is None
    assert found.in_period("acme", "2026-11") == [before, after]
    assert found.in_period("acme", "2026-12") == [after]
    assert found.in_period("acme", "2026-10") == [before]
    assert found.children("group", "2026-11-14") == ["acme"]
    assert found.children("group", "2026-11-15") == []


def test_children_of_children() -> None:
    rows = {"a": None, "b": "a", "c": "b", "d": "a", "e": None}
    found = Directory(Entry(tenant=tenant, parent=parent) for tenant, parent in rows.items())
    assert found.children("a", "2026-01-01") == ["b", "c", "d"]
    assert found.children("b", "2026-01-01") == ["c"]
    assert found.children("e", "2026-01-01") == []


def test_last_day() -> None:
    assert [last_day(period) for period in ("2026-02", "2028-02", "2026-12")] == [
        "2026-02-28", "2028-02-29", "2026-12-31",
    ]  # fmt: skip


def rows(*said: str) -> str:
    return "".join(f"[[tenant]]\n{each}\n" for each in said)


BAD = {
    "a typo": (['tenant = "a"\ncost_center = "x"'], "did you mean cost_centre"),
    "no tenant": (['name = "a"'], "row 1: tenant is None, which is no tenant's id"),
    "reserved": (['tenant = "@platform"'], "is no tenant's id"),
    "not in its normal form": (['tenant = "a\u0308"'], "is no tenant's id"),
    "float": (['tenant = "a"\nbilling_anchor = 1.5'], "billing_anchor is 1.5; it is a text"),
    "date": (['tenant = "a"\nfrom = "15.11.2026"'], "from is '15.11.2026'; write a day"),
    "datetime": (['tenant = "a"\nfrom = 2026-11-15T10:00:00Z'], "write a day"),
    "backwards": (['tenant = "a"\nfrom = 2026-11-15\nto = 2026-11-15'], "must be before `to`"),
    "currency": (['tenant = "a"\ncurrency = "euro"'], "three letters"),
    "overlap": (
        ['tenant = "a"', 'tenant = "a"\nfrom = 2026-11-15'],
        "two rows of 'a' are in force on 2026-11-15",
    ),
    "unknown parent": (
        ['tenant = "a"\nparent = "gruop"', 'tenant = "group"'],
        "'gruop', the parent of 'a', is in no row; did you mean 'group'?",
    ),
    "parent of another time": (
        ['tenant = "a"\nparent = "b"', 'tenant = "b"\nto = 2026-11-15'],
        "'b', the parent of 'a', has no row for 2026-11-15",
    ),
    "own parent": (['tenant = "a"\nparent = "a"'], "their own ancestors: a -> a"),
    "cycle later": (
        [
            'tenant = "a"\nparent = "b"',
            'tenant = "b"\nto = 2026-11-15',
            'tenant = "b"\nparent = "a"\nfrom = 2026-11-15',
        ],
        "on 2026-11-15 these are their own ancestors: a -> b -> a",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, name: str) -> None:
    said, why = BAD[name]
    with pytest.raises(DirectoryError) as refused:
        read(tmp_path, rows(*said))
    assert why in str(refused.value)
    assert str(tmp_path / "tenants.toml") in str(refused.value)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("[tenants]\na = 1", "t.toml", "there is no table 'tenants'"),
        ("tenant = 3", "t.toml", "is no list of rows"),
        ("tenant = [3]", "t.toml", "is no list of rows"),
        ("[[tenant", "t.toml", "not a TOML file"),
        ("tenant,name\na\n", "t.csv", "row 1 has not as many cells"),
        ("tenant,name\na,b,c\n", "t.csv", "row 1 has not as many cells"),
        ("tenant,nome\na,b\n", "t.csv", "did you mean name"),
        ('tenant,name\na,"b\n', "t.csv", "unexpected end"),
    ],
)
def test_what_is_no_directory(tmp_path: Path, text: str, name: str, said: str) -> None:
    with pytest.raises(DirectoryError, match=said):
        read(tmp_path, text, name)


def test_a_deep_and_wide_directory_is_read_in_one_go() -> None:
    """Each line of descent is walked once, however deep."""
    deep = [Entry(tenant=f"t{n}", parent=f"t{n - 1}" if n else None) for n in range(5000)]
    assert len(Directory(deep).children("t0", "2026-01-01")) == 4999
