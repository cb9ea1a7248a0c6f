"""No float in the money path: what computes, decides or sums amounts is walked as an AST.

The rule, for every file under `_MONEY_PATH` (paths that do not exist yet are skipped):
- no float or complex literal;
- no call of `float`, nor of a `math` or `statistics` function that returns one;
- no true division `/` or `/=`, unless an operand is a direct `Fraction(...)`, `Decimal(...)` or
  `Path(...)` call, or a string (then it joins a path).
A file that needs a ratio of integers writes `Fraction(a, b)`; one that counts uses `//`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_MONEY_PATH = (
    *("core/money.py", "core/prices", "core/restate", "core/decide", "core/settle", "core/read"),
    *("core/invoices", "core/allocate", "core/reconcile", "core/backfill"),
    *("plugins/prices", "plugins/invoices", "plugins/backfill"),
)
_EXACT = {"Fraction", "Decimal", "Path"}
_FLOAT_RESULT = {"sqrt", "pow", "exp", "log", "fsum", "fmean", "mean", "log2", "log10", "ldexp"}


def _files() -> list[Path]:
    found: list[Path] = []
    for name in _MONEY_PATH:
        place = _ROOT / name
        found += sorted(place.rglob("*.py")) if place.is_dir() else [place] * place.is_file()
    return found


def _floats(source: str) -> list[str]:
    return [
        f"line {getattr(node, 'lineno', 0)}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source))
        if _is_float(node)
    ]


def _is_float(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=float() | complex()):
            return True
        case ast.Call(func=ast.Name(id="float" | "complex")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="math" | "statistics"), attr=name)):
            return name in _FLOAT_RESULT
        case ast.BinOp(op=ast.Div(), left=left, right=right):
            return not (_is_exact(left) or _is_exact(right))
        case ast.AugAssign(op=ast.Div(), value=value):
            return not _is_exact(value)
        case _:
            return False


def _is_exact(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in _EXACT
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case _:
            return False


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(_ROOT)))
def test_money_never_meets_a_float(path: Path) -> None:
    assert _floats(path.read_text(encoding="utf-8")) == []


def test_the_money_path_is_there() -> None:
    assert _ROOT / "core/money.py" in _files()
    assert _ROOT / "core/prices/match.py" in _files()


@pytest.mark.parametrize(
    "source",
    ["x = 0.5", "x = 1e3", "y = 2j", "float(x)", "a / b", "a /= 2", "math.sqrt(a)", "(a + b) / c"],
)
def test_the_rule_sees_floats(source: str) -> None:
    assert _floats(source)


@pytest.mark.parametrize(
    "source",
    [
        *("a // b", "Fraction(a, b)", "Fraction(a) / b", "a / Decimal(b)", "Path(x) / y"),
        *("folder / 'name'", "folder / f'{x}.db'", "isinstance(x, float)", "math.lcm(2, 3)"),
    ],
)
def test_the_rule_lets_exact_arithmetic_be(source: str) -> None:
    assert _floats(source) == []
