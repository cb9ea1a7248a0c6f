"""The authority rule: which record counts for what, from when on a difference matters, what then.

    [authority]
    totals = "provider"              # whose total of a period counts: provider | ledger
    tokens = "provider"              # whose token counts: provider | ledger
    split = "ledger"                 # who says whose a cost is: the ledger alone knows tenants
    adjust = "pro_rata"              # what an adjustment does: pro_rata | platform
    charge_adjustments = false       # whether tenants are charged what they are adjusted by
    flag_apart = false               # whether taxes, credits and the like must be reviewed
    sources = ["openai", "csv"]      # which document counts where several bill one account

    [threshold.money]                # flagged above both; amounts are strings
    absolute = "0.01"                # USD; of tokens and requests a whole number
    relative = "0.001"               # of the larger side

    [accounts]
    "litellm-prod" = "proj_1"        # the ledger's name = the invoice's

    [[override]]
    provider = "openai"
    account = "proj_1"               # left out: every account of the provider
    adjust = "platform"

Unknown keys are refused. A TOML float is refused: 0.1 in a file is not 0.1 in memory.
"""

from __future__ import annotations

import hashlib
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Literal

import msgspec

from costspan.core.money import MoneyError, decimal_of, parse_usd
from costspan.core.prices.names import canonical_provider

Whose = Literal["provider", "ledger"]
Adjust = Literal["pro_rata", "platform"]
What = Literal["requests", "tokens", "money"]


class AuthorityError(ValueError):
    """A rule that cannot be used; the text says what is wrong in it."""


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A difference matters above both: `absolute` in USD or units, `relative` to the larger side.

    Decimal strings.
    """

    absolute: str = "0"
    relative: str = "0"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What matters of each; the default of money is a cent and a tenth of a percent."""

    requests: Threshold = Threshold()
    tokens: Threshold = Threshold("0", "0.001")
    money: Threshold = Threshold("0.01", "0.001")


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which record counts for what, and what an adjustment does."""

    totals: Whose = "provider"
    tokens: Whose = "provider"
    split: Literal["ledger"] = "ledger"
    adjust: Adjust = "pro_rata"
    charge_adjustments: bool = False
    flag_apart: bool = False
    sources: tuple[str, ...] = ("openai", "anthropic", "focus", "csv")


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What holds for one provider, or one of its accounts, instead; None: as the rule says."""

    provider: str
    account: str | None = None
    totals: Whose | None = None
    tokens: Whose | None = None
    adjust: Adjust | None = None
    charge_adjustments: bool | None = None
    flag_apart: bool | None = None
    threshold: Thresholds | None = None


class Authority(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole rule as it is written; `sha256` names it."""

    authority: Rule = Rule()
    threshold: Thresholds = Thresholds()
    accounts: dict[str, str] = {}
    override: tuple[Override, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the content, the same for any order of keys."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def rule(self, provider: str, account: str) -> Rule:
        """What holds for an account of a provider: its own override first."""
        found = msgspec.structs.asdict(self.authority)
        for each in self._overrides(provider, account):
            said = msgspec.structs.asdict(each)
            found |= {name: said[name] for name in found.keys() & said if said[name] is not None}
        return Rule(**found)

    def is_over(self, what: What, provider: str, account: str, ledger: int, invoice: int) -> bool:
        """Whether a difference matters: amounts in pico-USD, tokens or requests."""
        thresholds = self.threshold
        for each in self._overrides(provider, account):
            thresholds = each.threshold or thresholds
        threshold: Threshold = getattr(thresholds, what)
        difference = abs(invoice - ledger)
        larger = max(abs(invoice), abs(ledger))
        least = parse_usd(threshold.absolute) if what == "money" else int(threshold.absolute)
        return difference > least and difference > Fraction(threshold.relative) * larger

    def _overrides(self, provider: str, account: str) -> list[Override]:
        """Those that hold, the most specific one last."""
        named = [each for each in self.override if canonical_provider(each.provider) == provider]
        whole = [each for each in named if each.account is None]
        return whole + [each for each in named if each.account == account]


def load(path: Path) -> Authority:
    """The rule in a TOML file.

    Raises:
        AuthorityError: if it cannot be read, or anything in it is not understood.
    """
    try:
        return parse(path.read_text("utf-8"))
    except OSError as error:
        raise AuthorityError(f"{path}: cannot be read: {error.strerror or error}") from error
    except AuthorityError as error:
        raise AuthorityError(f"{path}: {error}") from error


def parse(text: str) -> Authority:
    """The rule in a TOML text.

    Raises:
        AuthorityError: if anything in it is not understood.
    """
    try:
        found = msgspec.convert(tomllib.loads(text), Authority)
        for thresholds in (found.threshold, *(each.threshold for each in found.override)):
            if thresholds is not None:
                _check(thresholds)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, MoneyError) as error:
        raise AuthorityError(f"not an authority rule: {error}") from error
    return found


def _check(thresholds: Thresholds) -> None:
    for what in ("requests", "tokens", "money"):
        each: Threshold = getattr(thresholds, what)
        for name, text in (("absolute", each.absolute), ("relative", each.relative)):
            if decimal_of(text) < 0:
                raise AuthorityError(f"threshold.{what}.{name}: {text!r} is negative")
        if what == "money":
            parse_usd(each.absolute)
        elif not each.absolute.isdecimal():
            raise AuthorityError(f"threshold.{what}.absolute: {each.absolute!r} is no whole number")
