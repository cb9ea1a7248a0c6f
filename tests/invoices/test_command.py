"""`costspan invoices`: what people and programs see."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from papers import NOW, cost, openai_page, table, used

from costspan.cli import main


@pytest.fixture(autouse=True)
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("COSTSPAN_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)


class Desk:
    """Runs `costspan invoices …` and returns (code, out, err)."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main(["invoices", *arguments])
        return code, *self._capsys.readouterr()

    def write(self, name: str, raw: bytes) -> str:
        path = self.folder / name
        path.write_bytes(raw)
        os.utime(path, ns=(NOW, NOW))
        return f"./{name}"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def bill(**amounts: str) -> bytes:
    results = [cost(f"{model}, input", value) for model, value in amounts.items()]
    return openai_page({"2026-11-05": [*results, cost("Sales Tax", "0.19")]})


def test_import_says_what_it_kept_and_again_that_nothing_changed(run: Desk) -> None:
    file = run.write("costs.json", bill(a="1.5", b="2"))
    code, out, _ = run("import", file, "--account", "org-1", "--by", "mia")
    assert code == 0
    assert "openai  openai  account org-1  2026-11  version 1  3 lines" in out
    assert "  usage  3.500000000000  USD\n  tax  0.190000000000  USD\n" in out
    assert "  together  3.690000000000  USD\n" in out
    assert "nothing changed" in run("import", file, "--account", "org-1")[1]


def test_another_version_says_what_differs(run: Desk) -> None:
    run("import", run.write("costs.json", bill(a="1.5", b="2")))
    _, out, _ = run("import", run.write("costs.json", bill(a="1.75", c="3")))
    assert "  version 2, differs in 3 lines from version 1:\n" in out
    assert "    2026-11-05 a, input: 1.5 USD -> 1.75 USD\n" in out
    assert "    2026-11-05 b, input: 2 USD -> nothing\n" in out
    assert "    2026-11-05 c, input: nothing -> 3 USD\n" in out
    found = json.loads(run("import", "./costs.json", "--json")[1])["invoices"]
    assert [(each["version"], each["is_new"], each["changes"]) for each in found] == [
        (2, False, [])
    ]


def test_a_provisional_day_settles_without_another_line(run: Desk) -> None:
    file = run.write("costs.json", bill(a="1"))
    assert "provisional" in run("import", file, "--as-of", "2026-11-06")[1]
    _, out, _ = run("import", file)
    assert "version 2, differs in 2 lines from version 1:" in out
    assert "a, input: 1 USD, provisional -> 1 USD\n" in out


def test_list_and_show(run: Desk) -> None:
    usage = openai_page({"2026-11-06": [used(7, input_tokens=1234)]})
    run("import", run.write("c.json", bill(a="1")), run.write("u.json", usage), "--by", "mia")
    run("import", run.write("c.json", bill(a="2")))
    found = json.loads(run("list", "--json")[1])["invoices"]
    assert [(e["source"], e["version"], e["is_current"], e["amount"]) for e in found] == [
        ("openai", 1, False, "1.190000000000"),
        ("openai", 2, True, "2.190000000000"),
        ("openai-usage", 1, True, None),
    ]
    _, out, _ = run("list", "--period", "2026-11")
    assert "replaced" in out
    assert "no money" in out
    assert "no invoices yet" in run("list", "--period", "2026-10")[1]
    shown = json.loads(run("show", found[2]["id"][:9], "--json")[1])
    assert [(e["requests"], e["quantity"], e["amount"]) for e in shown["lines"]] == [
        (7, None, None),
        (None, 1234, None),
    ]
    _, text, _ = run("show", found[1]["id"])
    assert "a, input" in text
    assert "together  2.190000000000  USD" in text
    rows = list(csv.DictReader(io.StringIO(run("show", found[1]["id"], "--csv")[1])))
    assert [row["amount"] for row in rows] == ["2.000000000000", "0.190000000000"]


def test_the_document_comes_back_as_it_was(run: Desk) -> None:
    raw = bill(a="1") + b"\r\n \r\n"
    [found] = json.loads(run("import", run.write("c.json", raw), "--json")[1])["invoices"]
    assert run("show", found["id"], "--raw")[1].encode() == raw


def test_a_hostile_name_is_no_formula_and_no_escape(run: Desk) -> None:
    raw = openai_page({"2026-11-05": [cost("=cmd()|x \x1b[31m, input", "1")]})
    _, out, _ = run("import", run.write("c.json", raw), "--json")
    id = json.loads(out)["invoices"][0]["id"]
    assert "'=cmd()|x" in run("show", id, "--csv")[1]
    assert "\x1b" not in run("show", id)[1]


def test_any_csv(run: Desk) -> None:
    toml = b'[invoice]\nprovider = "x"\ncurrency = "EUR"\n[columns]\namount = "a"\nday = "d"\n'
    columns, file = run.write("c.toml", toml), run.write("b.csv", table("ad", ("1", "2026-11-05")))
    code, out, _ = run("import", file, "--columns", columns)
    assert (code, "  usage  1.000000000000  EUR\n" in out) == (0, True)
    code, _, err = run("import", file)
    assert (code, "needs --columns" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("import", "openai"), 2, "--period"),
        (("import", "openai", "--period", "2026-13"), 2, "period"),
        (("import", "nobody", "--period", "2026-11"), 2, "no importer knows 'nobody'"),
        (("import", "./missing.json"), 2, "missing.json"),
        (("import", "./good.json", "./bad.json"), 2, "(1 invoice before it stay kept)"),
        (("import", "./bad.json", "--rules", "x"), 2, "--rules changes nothing here"),
        (("show", "feed"), 3, "no invoice 'feed'"),
        (("show", ""), 3, "no invoice"),
    ],
)
def test_what_cannot_be_done_is_said(
    run: Desk, arguments: tuple[str, ...], code: int, said: str
) -> None:
    run.write("bad.json", bill(a="1")[:-4])
    run("import", run.write("good.json", bill(a="1")))
    found, _, err = run(*arguments)
    assert found == code
    assert said in err


def test_a_reader_creates_no_ledger(run: Desk) -> None:
    for arguments in (("list",), ("show", "feed")):
        assert run(*arguments)[0] == 3
    assert not (run.folder / "ledger.db").exists()


def test_an_import_that_is_refused_creates_no_ledger(run: Desk) -> None:
    """A mistyped --ledger must not become one; a new one is said."""
    bad, good = run.write("bad.json", bill(a="1")[:-4]), run.write("good.json", bill(a="1"))
    assert run("import", bad)[0] == 2
    assert run("import", run.write("worse.json", bill(a="NaN")))[0] == 2
    assert not (run.folder / "ledger.db").exists()
    assert "new ledger: " in run("import", good)[2]
    assert "new ledger: " not in run("import", good)[2]


def test_an_account_that_is_gone_is_said(run: Desk) -> None:
    toml = b'[invoice]\nprovider="x"\ncurrency="EUR"\n[columns]\namount="a"\nday="d"\naccount="n"'
    columns, day = run.write("c.toml", toml), "2026-11-05"
    both = run.write("both.csv", table("adn", ("1", day, "A"), ("2", day, "B")))
    one = run.write("one.csv", table("adn", ("3", day, "A")))
    run("import", both, "--columns", columns)
    code, out, _ = run("import", one, "--columns", columns)
    assert (code, "account B  2026-11  version 2  0 lines" in out) == (0, True)
    assert "which it does not name: an empty version takes the place" in out
    refused = run("import", one, "--columns", columns, "--replace", "--account", "A")
    assert (refused[0], "leave --account out" in refused[2]) == (2, True)
    other = run.write("other.csv", table("adn", ("9", day, "C")))
    assert "stay as they are" in run("import", other, "--columns", columns)[1]
    assert run("import", other, "--columns", columns, "--replace")[0] == 0
    found = json.loads(run("list", "--json")[1])["invoices"]
    assert {each["account"]: each["amount"] for each in found if each["is_current"]} == {
        "A": "0.000000000000", "B": "0.000000000000", "C": "9.000000000000",
    }  # fmt: skip


def test_a_key_is_never_shown(run: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-secret-1")
    arguments = ("import", "openai", "--period", "2020-01", "--base-url", "http://127.0.0.1:9")
    monkeypatch.setattr("costspan.plugins.invoices.fetch.PAUSES_SECONDS", ())
    code, out, err = run(*arguments)
    assert code == 2
    assert "sk-secret-1" not in out + err
