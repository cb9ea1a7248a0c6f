"""`costspan reconcile` at a desk: what it prints, what it keeps, how it exits; and the webhook."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from month import PERIOD, USD, bill, call, call_lines, keep, line, month

from costspan.cli import main
from costspan.core import counters, hooks
from costspan.core.reconcile import Variance, reconcile
from costspan.core.settle.ledger import Ledger
from costspan.plugins.alerts import webhook


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Desk:
    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._path = path
        self._capsys = capsys

    def open(self) -> Ledger:
        return month(self._path)

    def run(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        code = main(["reconcile", PERIOD, *arguments])
        return Ran(code, *self._capsys.readouterr())

    def plain(self, *arguments: str) -> Any:
        return json.loads(self.run("--json", *arguments).out)


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    monkeypatch.setenv("COSTSPAN_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("COSTSPAN_SPOOL", str(tmp_path / "spool"))
    monkeypatch.delenv("COSTSPAN_CONFIG", raising=False)
    monkeypatch.delenv(webhook.VARIABLE, raising=False)
    return Desk(tmp_path / "ledger.db", capsys)


@pytest.fixture
def late(desk: Desk) -> Desk:
    """acme's call is billed; so are 5 USD of a model that nobody knows, and a tax."""
    ledger = desk.open()
    keep(ledger, call(1))
    tax = line(category="tax", amount=USD, description="VAT")
    bill(ledger, [*call_lines(), line(model="o3", amount=5 * USD), tax])
    ledger.close()
    return desk


def test_books_that_agree_exit_well(desk: Desk) -> None:
    ledger = desk.open()
    keep(ledger, call(1))
    bill(ledger, call_lines())
    ledger.close()
    ran = desk.run()
    assert ran.code == 0
    assert "no variance over the threshold stands" in ran.out


def test_no_invoice_is_said_and_is_no_success(desk: Desk) -> None:
    desk.open().close()
    ran = desk.run()
    assert ran.code == 3
    assert "no invoice of 2026-03 is kept" in ran.err


def test_a_variance_is_told_in_words_and_exits_with_3(late: Desk) -> None:
    ran = late.run()
    assert ran.code == 3
    assert "spent outside the instrumented path: no event of o3 in the whole period" in ran.out
    assert "a tax: no usage: VAT" in ran.out
    assert "2 variances over the threshold that nobody reviewed" in ran.out
    assert "to pay" in ran.out


def test_a_review_settles_it_until_the_amount_changes(late: Desk) -> None:
    ids = [each["id"] for each in late.plain()["variances"] if each["stands"]]
    said = ("--state", "accepted", "--by", "ann", "--note", "a test")
    assert late.run("--review", ids[0], *said).code == 3
    assert late.run("--review", *ids[1:], *said).code == 0
    assert late.run().code == 0
    assert "accepted by ann: a test" in late.run("--all").out
    ledger = late.open()
    bill(ledger, [*call_lines(), line(model="o3", amount=6 * USD)])
    ledger.close()
    again = late.plain()
    assert again["standing"] == 1
    assert [each["id"] for each in again["gone"]] == [ids[1]]
    assert f"gone  {ids[1]}" in late.run("--all").out


def test_a_disputed_variance_is_reviewed_and_an_open_one_is_not(late: Desk) -> None:
    ids = [each["id"] for each in late.plain()["variances"] if each["stands"]]
    review = ("--review", *ids, "--by", "ann", "--note", "n", "--state")
    assert late.run(*review, "disputed").code == 0
    assert late.run(*review, "open").code == 3


def test_what_is_disputed_is_not_adjusted_and_it_is_said(late: Desk) -> None:
    ids = [each["id"] for each in late.plain()["variances"] if each["stands"]]
    late.run("--review", *ids, "--by", "ann", "--note", "n", "--state", "disputed")
    ran = late.run("--adjust", "--by", "ann", "--reason", "march")
    assert "1 difference not adjusted: disputed by a review" in ran.err
    assert "nothing to adjust" in ran.out
    assert {each["state"] for each in late.plain()["variances"] if each["id"] in ids} == {
        "disputed"
    }


def test_an_account_that_nobody_knows_is_said(late: Desk) -> None:
    ran = late.run("--account", "typo")
    assert (ran.code, "no account 'typo' in the invoices or the books" in ran.err) == (3, True)
    assert late.run("--account", "").code == 3
    assert "5.000000000000" in late.run("--account", "").out


def test_a_document_that_is_left_out_is_said(desk: Desk) -> None:
    ledger = desk.open()
    keep(ledger, call(1))
    bill(ledger, call_lines(), source="openai", account="")
    other = bill(ledger, call_lines(), source="csv", account="org-1\x1b[31m")
    ledger.close()
    text = "left out: csv openai org-1\\x1b[31m version 1"
    assert (desk.run().code, text in desk.run().out, desk.run().err) == (0, True, "")
    assert text in desk.run("--csv").err
    ran = desk.run("--json")
    (left,) = json.loads(ran.out)["left_out"]
    (counts,) = json.loads(ran.out)["documents"]
    assert text in ran.err
    assert (left["id"], left["instead"]) == (other.id, counts["id"])
    ran = desk.run("--account", "org-1\x1b[31m")
    assert ran.code == 3
    assert text in ran.err
    ran = desk.run("--adjust", "--by", "ann", "--reason", "march")
    assert "nothing to adjust" in ran.out


def test_an_invoice_that_bills_nothing_is_said_before_it_is_adjusted_to(desk: Desk) -> None:
    ledger = desk.open()
    keep(ledger, call(1, tokens=(10_000, 1_000)))
    bill(ledger, [], source="openai", currency="")
    ledger.close()
    ran = desk.run()
    assert ran.code == 3
    assert "bills nothing (yet)" in ran.out
    assert "not billed yet" in ran.out
    ran = desk.run("--adjust", "--by", "ann", "--reason", "march")
    assert "an invoice bills nothing: if it is not written yet" in ran.err
    assert desk.plain()["totals"][0]["adjusted"] == "-0.035000000000"


def test_an_escape_sequence_of_an_invoice_reaches_no_terminal(desk: Desk) -> None:
    ledger = desk.open()
    evil = "x\x1b[31m\u202e"
    keep(ledger, call(1))
    bill(ledger, [*call_lines(), line(model=evil, amount=USD, project=evil, description=evil)])
    ledger.close()
    for form in ((), ("--all",), ("--json",), ("--csv",)):
        ran = desk.run(*form)
        assert ran.code == 3
        assert "\x1b" not in ran.out
        assert "\u202e" not in ran.out


def test_adjusting_brings_the_books_to_the_invoice_and_reviews(late: Desk) -> None:
    ran = late.run("--adjust", "--by", "ann", "--reason", "march")
    assert ran.code == 0
    assert "posted 1 adjustment(s)" in ran.out
    (total,) = late.plain()["totals"]
    assert total["adjusted"] == total["difference"] == "5.000000000000"
    assert "nothing to adjust" in late.run("--adjust", "--by", "ann", "--reason", "again").out


def test_csv_has_a_row_for_each_cause(late: Desk) -> None:
    rows = list(csv.DictReader(io.StringIO(late.run("--csv").out)))
    assert [(row["what"], row["cause"], row["cause_amount"]) for row in rows] == [
        ("tokens", "outside_path", "1000"),
        ("money", "outside_path", "5.000000000000"),
        ("tax", "tax", "1.000000000000"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--review", "x"),
        ("--review", "x", "--state", "accepted", "--by", "ann", "--note", "n"),
        ("--adjust",),
        ("--adjust", "--by", "ann"),
        ("--adjust", "--by", "a", "--reason", "r", "--account", "x"),
        ("--by", "ann"),
        ("--note", "n"),
        ("--rule", "nowhere.toml"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(late: Desk, arguments: tuple[str, ...]) -> None:
    assert late.run(*arguments).code == 2


class _Listener(BaseHTTPRequestHandler):
    status = 204
    heard: list[Any] = []  # noqa: RUF012 -- one list for the server's life

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(json.loads(body))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Listener]]:
    class Listener(_Listener):
        heard: list[Any] = []  # noqa: RUF012

    server = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv(webhook.VARIABLE, f"http://127.0.0.1:{server.server_address[1]}/hook")
    if not hooks.plugins().has_plugin("webhook"):
        hooks.plugins().register(webhook, "webhook")
    monkeypatch.setattr(hooks, "problems", [])
    yield Listener
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_new_variance_is_told_once(late: Desk, listener: type[_Listener]) -> None:
    late.run()
    late.run()
    flagged = [each["variance"] for each in listener.heard]
    assert [(each["what"], each["model"]) for each in flagged] == [
        ("tokens", "o3"),
        ("money", "o3"),
    ]
    assert listener.heard[0]["event"] == "variance_found"
    assert flagged[1]["difference"] == "5.000000000000"


def test_an_alert_that_is_not_taken_is_said_counted_and_sent_again(
    late: Desk, listener: type[_Listener]
) -> None:
    listener.status = 500
    before = counters.snapshot().get("plugin_failed:webhook", 0)
    ran = late.run()
    assert ran.code == 3
    assert "alert not sent by plugin webhook: WebhookError: " in ran.err
    assert "answered 500" in ran.err
    assert counters.snapshot()["plugin_failed:webhook"] > before
    listener.status = 204
    late.run()
    assert len(listener.heard) == 4


def test_without_a_url_nothing_is_sent(late: Desk) -> None:
    assert late.run().code == 3


def test_a_malformed_url_is_not_repeated(late: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("https://hooks.test/T0SECRET x", "http://[T0SECRET/", "http://h:T0SECRET/"):
        monkeypatch.setenv(webhook.VARIABLE, url)
        with pytest.raises(webhook.WebhookError, match="cannot be reached") as raised:
            webhook.variance_found(flagged(late))
        assert "T0SECRET" not in str(raised.value)
        assert raised.value.__suppress_context__


def flagged(desk: Desk) -> Variance:
    ledger = desk.open()
    found = reconcile(ledger, PERIOD).variances[0]
    ledger.close()
    return found
