"""Pages to attach or print: one self-contained file, without scripts, fonts or links elsewhere.

Everything that is put into a template is escaped; a control character is written as its escape, so
that no viewer of the source obeys it either.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from costspan.core.read.words import shown


@lru_cache(1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("costspan.core.read.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    return environment


def _plain(value: Any) -> Any:
    """Whatever a template prints, as text that nothing obeys (bytes of markup are none of it)."""
    return shown(value) if type(value) is str else value


def render(template: str, **what: Any) -> str:
    """The page that a template of this package makes of `what`."""
    return _environment().get_template(template).render(what)
