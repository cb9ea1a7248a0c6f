"""The suite as a class of tests: subclass it and name your factory.

    from costspan.conformance import LedgerConformance

    class TestMyLedger(LedgerConformance):
        factory_class = MyLedgers

Nothing may be removed or weakened.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from costspan.conformance.ledgers.alike import Alike
from costspan.conformance.ledgers.books import begin
from costspan.conformance.ledgers.factory import LedgerFactory, name_of, named
from costspan.conformance.ledgers.months import Months
from costspan.conformance.ledgers.opened import opened
from costspan.conformance.ledgers.record import Record
from costspan.conformance.ledgers.settlers import Settlers
from costspan.core.settle.ledger import Ledger

_FIXTURES = ("factory", "url", "new_ledger", "ledger")


class LedgerConformance(Record, Settlers, Months, Alike):
    """All that a ledger must do, of the ledgers of one factory."""

    factory_class: ClassVar[type[LedgerFactory]]

    def __init_subclass__(cls) -> None:
        """Raise TypeError where a test, or what it stands on, is replaced."""
        for base in LedgerConformance.__mro__[:-1]:
            for name, ours in vars(base).items():
                is_of_the_suite = name.startswith("test_") or name in _FIXTURES
                if is_of_the_suite and inspect.getattr_static(cls, name) is not ours:
                    text = f"{cls.__name__}: {name} is overridden; only factory_class may be set"
                    raise TypeError(text)
        factory: object = getattr(cls, "factory_class", None)
        is_factory = isinstance(factory, type) and issubclass(factory, LedgerFactory)
        if factory is not None and not is_factory:
            text = f"factory_class is a subclass of LedgerFactory, not {factory!r}"
            raise TypeError(f"{cls.__name__}: {text}")

    @pytest.fixture(scope="class")
    @classmethod
    def factory(
        cls, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
    ) -> LedgerFactory:
        """What makes the ledgers, open."""
        return opened(cls.factory_class, pytestconfig, tmp_path_factory)

    @pytest.fixture
    def url(self, factory: LedgerFactory) -> Iterator[str]:
        """A place where no ledger is."""
        found = factory.url()
        yield found
        factory.gone(found)

    @pytest.fixture
    def new_ledger(self, factory: LedgerFactory) -> Iterator[Callable[[], Ledger]]:
        """Makes another empty ledger at every call."""
        made: list[tuple[str, Ledger]] = []

        def make() -> Ledger:
            url = factory.empty()
            made.append((url, factory.ledger(url)))
            return made[-1][1]

        yield make
        for url, ledger in made:
            ledger.close()
            factory.gone(url)

    @pytest.fixture
    def ledger(self, new_ledger: Callable[[], Ledger]) -> Ledger:
        """A ledger with a policy, and nothing else."""
        return begin(new_ledger())

    def test_another_process_finds_the_factory(self, factory: LedgerFactory) -> None:
        """By its name; a factory made inside a function, or in a test file, has none."""
        name = name_of(type(factory))
        try:
            found = named(name)
        except (ImportError, AttributeError, TypeError) as error:
            pytest.fail(f"{name} cannot be imported by another process: {error}", pytrace=False)
        if found is not type(factory):
            pytest.fail(f"{name} is another class when it is imported by its name", pytrace=False)
        if not factory.name:
            pytest.fail(f"{name}: a factory needs a name", pytrace=False)
