"""Where two rule sets decide differently: the feature space cut into boxes, not enumerated.

A box is a set of values for each feature that either rule set looks at. A table cuts a box into
the parts its rules decide, each part again a box; two tables cut it into parts where each has one
rule. So the answer is exact for every combination of features, and as short as the rules are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from costspan.core.decide import DOMAINS, Rule, RuleSet

Box = dict[str, frozenset[str]]


class Difference(NamedTuple):
    """A box in which two rule sets decide differently, and the rule of each that does.

    `features` names only what narrows the box; `combinations` is how many combinations of the
    looked-at features it holds.
    """

    features: Box
    before: Rule
    after: Rule
    combinations: int


class Compared(NamedTuple):
    """How a table differs: of how many combinations in all, and where."""

    combinations: int
    differences: list[Difference]


def compare(before: RuleSet, after: RuleSet, table: str) -> Compared:
    """Compare one table of two rule sets by what it decides (`then`), whatever its rules are."""
    looked_at = {*before.looked_at(table), *after.looked_at(table)}
    whole = {name: frozenset(values) for name, values in DOMAINS.items() if name in looked_at}
    differing: dict[tuple[int, int], list[Box]] = {}
    old, new = before.tables[table], after.tables[table]
    for box, first in decided(old, whole):
        for part, second in decided(new, box):
            if old[first].then != new[second].then:
                differing.setdefault((first, second), []).append(part)
    differences = [
        Difference(_narrowed(box), old[first], new[second], _size(box))
        for (first, second), boxes in sorted(differing.items())
        for box in merged(boxes)
    ]
    return Compared(_size(whole), differences)


def decided(rules: Sequence[Rule], box: Box) -> Iterator[tuple[Box, int]]:
    """The parts of a box with the position of the rule that decides each; together, the box."""
    left = [box]
    for at, rule in enumerate(rules):
        missed: list[Box] = []
        for part in left:
            rest = part
            for feature, values in rule.when:
                if outside := rest[feature] - values:
                    missed.append({**rest, feature: outside})
                inside = rest[feature] & values
                if not inside:
                    break
                rest = {**rest, feature: inside}
            else:
                yield rest, at
        left = missed
    assert not left, "a table ends in a rule that always matches"


def never_decides(rules: Sequence[Rule]) -> list[Rule]:
    """The rules that no combination of features ever reaches."""
    features = {name for rule in rules for name, _ in rule.when}
    whole = {name: frozenset(DOMAINS[name]) for name in features}
    reached = {at for _, at in decided(rules, whole)}
    return [rule for at, rule in enumerate(rules) if at not in reached]


def merged(boxes: list[Box]) -> list[Box]:
    """The same combinations in fewer boxes: those that differ in one feature alone are one."""
    done = boxes
    while True:
        before = len(done)
        for name in boxes[0]:
            alike: dict[frozenset[tuple[str, frozenset[str]]], Box] = {}
            for box in done:
                rest = frozenset(item for item in box.items() if item[0] != name)
                seen = alike.get(rest)
                alike[rest] = box if seen is None else {**seen, name: seen[name] | box[name]}
            done = list(alike.values())
        if len(done) == before:
            return done


def _size(box: Box) -> int:
    return prod(len(values) for values in box.values())


def _narrowed(box: Box) -> Box:
    return {name: values for name, values in box.items() if len(values) < len(DOMAINS[name])}
