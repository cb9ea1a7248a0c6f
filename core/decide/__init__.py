"""What an event costs, who owns it, in which bucket, and what is charged: rules as data.

Pure: facts, lineage, rules and prices in; a decision out. The same facts, rules and prices always
give the same decision, and the decision names all three.
"""

from costspan.core.decide.decision import Decision, Share, decide
from costspan.core.decide.features import DOMAINS, Lineage
from costspan.core.decide.profiles import RuleError, load_profile, load_rules, profile_names
from costspan.core.decide.rules import Rule, RuleSet
from costspan.core.decide.ruling import Ruling

__all__ = [
    "DOMAINS",
    "Decision",
    "Lineage",
    "Rule",
    "RuleError",
    "RuleSet",
    "Ruling",
    "Share",
    "decide",
    "load_profile",
    "load_rules",
    "profile_names",
]
