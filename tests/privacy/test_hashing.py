"""Prompt hashes: off at first, a tenant's own, the same through every host, and no prompt kept."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import costspan
from costspan.adapter import Attempt
from costspan.core import counters
from costspan.core.config import ConfigError
from costspan.core.privacy import prompts
from costspan.core.privacy.hashing import PromptKeyError, PromptKeys, canonical_prompt
from costspan.core.schema import Observation

SECRET = "0123456789abcdef0123456789abcdef"
FORMER = "f" * 40
WORDS = "tell me about the merger"
ASKED = [{"role": "user", "content": WORDS}]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    prompts.use(None)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.keys"
    path.write_text(f"# first the current one\nk2:{SECRET}\n\nk1:{FORMER}\n", "utf-8")
    return path


def test_a_hash_is_an_hmac_under_a_key_of_the_tenants_own(keys: Path) -> None:
    own = hmac.new(SECRET.encode(), b"costspan/prompt/acme", hashlib.sha256).digest()
    expected = hmac.new(own, canonical_prompt(ASKED), hashlib.sha256).hexdigest()
    found = PromptKeys.read(keys)
    assert found.hash(ASKED, "acme") == f"k2:{expected}"
    assert found.hash(ASKED, "acme") != found.hash(ASKED, "globex")


def test_a_former_key_still_recognises_and_a_lost_one_says_so(keys: Path) -> None:
    former = PromptKeys({"k1": FORMER.encode()}).hash(ASKED, "acme")
    found = PromptKeys.read(keys)
    assert found.matches(ASKED, "acme", former) is True
    assert found.matches("something else", "acme", former) is False
    assert found.matches(ASKED, "globex", former) is False
    assert PromptKeys({"k2": SECRET.encode()}).matches(ASKED, "acme", former) is None


def test_every_host_has_the_same_form() -> None:
    langchain = [
        SimpleNamespace(type="system", content="be brief"),
        SimpleNamespace(type="human", content=[{"type": "text", "text": WORDS}]),
        SimpleNamespace(type="ai", content="no"),
    ]
    wire = [
        {"role": "system", "content": "be brief"},
        {"content": WORDS, "role": "user", "name": "ann"},
        {"role": "assistant", "content": "no"},
    ]
    assert canonical_prompt(langchain) == canonical_prompt(wire)
    assert canonical_prompt(WORDS) == canonical_prompt(ASKED) == canonical_prompt([WORDS])
    assert canonical_prompt(wire) != canonical_prompt(wire[::-1])


def test_what_json_has_no_form_for_is_the_same_every_time() -> None:
    def with_image() -> list[dict[str, object]]:
        return [{"role": "user", "content": [{"data": b"\x00\xff", "by": object()}]}]

    assert canonical_prompt(with_image()) == canonical_prompt(with_image())


@pytest.mark.parametrize(
    "text", ["", "k1:short", "k1", f"k1:{SECRET}\nk1:{FORMER}", f"a b:{SECRET}"]
)
def test_a_key_file_that_cannot_be_used_is_refused_without_showing_it(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "bad.keys"
    path.write_text(text, "utf-8")
    with pytest.raises(PromptKeyError) as refused:
        PromptKeys.read(path)
    assert SECRET not in str(refused.value)
    with pytest.raises(ConfigError, match="prompt_keys"):
        costspan.configure(ledger=tmp_path / "l.db", spool=tmp_path / "s", prompt_keys=path)


def _call(recorded: Callable[[], list[Observation]]) -> list[Observation]:
    with costspan.attribute("acme"):
        Attempt.start(requested_model="gpt-4o", prompt=ASKED).end()
    return recorded()


def test_nothing_is_hashed_until_a_key_is_configured(
    recorded: Callable[[], list[Observation]],
) -> None:
    seen = _call(recorded)
    assert len(seen) == 2
    assert all(each.prompt_hash is None for each in seen)
    assert WORDS not in repr(seen)


def test_the_hash_is_recorded_and_the_prompt_is_not(
    recorded: Callable[[], list[Observation]], keys: Path
) -> None:
    prompts.use(keys)
    seen = _call(recorded)
    expected = PromptKeys.read(keys).hash(ASKED, "acme")
    assert [each.prompt_hash for each in seen] == [expected, expected]
    assert WORDS not in repr(seen)
    assert not any(flag for each in seen for flag in each.flags)


def test_without_a_tenant_there_is_no_key(
    recorded: Callable[[], list[Observation]], keys: Path
) -> None:
    prompts.use(keys)
    before = counters.snapshot().get("prompt_unhashed:no_tenant", 0)
    Attempt.start(requested_model="gpt-4o", prompt=ASKED).end()
    assert all(each.prompt_hash is None for each in recorded())
    assert counters.snapshot()["prompt_unhashed:no_tenant"] == before + 1


def test_a_prompt_of_another_kind_harms_nobody(
    recorded: Callable[[], list[Observation]], keys: Path
) -> None:
    prompts.use(keys)
    with costspan.attribute("acme"):
        Attempt.start(requested_model="gpt-4o", prompt=object()).end()
    assert len(recorded()) == 2
