"""Values of expressions in other people's code, as far as they are written there: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

_DEEPEST = 8
_IN_EACH = _DEEPEST - 2
"""Depth of what is done with each item of a list; there, no list is made of another: that could take long."""

_LONGEST = 1000
_MOST_NUMBERS = 16
"""Numbers of a list that is computed with, or of which others are made: constants have one for each channel."""

_SEQUENCES = frozenset({"array", "asarray", "tensor", "Tensor", "FloatTensor", "list", "tuple"})
"""Functions that return the numbers which they are given."""


def list_values(tree: ast.AST) -> dict[str, Any]:
    """Values of all names that a file assigns; names that have different values in different places have none.

    Args:
        tree: The file.
    """
    values: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name, value in list_assigned(target, node.value):
                    item = evaluate_expression(value, values)
                    known = item if _is_small(item) else None
                    values[name] = known if name not in values or values[name] == known else None
    return values


def list_assigned(target: ast.expr, value: ast.expr) -> list[tuple[str, ast.expr]]:
    """Names and what is assigned to them, also to several at once.

    Args:
        target: The left side.
        value: The right side.
    """
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return [item for pair in zip(target.elts, value.elts, strict=True) for item in list_assigned(*pair)]
    name = getattr(target, "id", getattr(target, "attr", None))
    return [] if name is None else [(str(name), value)]


def evaluate_expression(node: ast.expr, values: Mapping[str, Any], depth: int = 0) -> Any:
    """The value of an expression of literals, names, lists and divisions of numbers; None if it is anything else.

    ``[x / 255 for x in (125.3, 123.0, 113.9)]`` and ``np.array(MEAN) / 255`` are lists of numbers.

    Args:
        node: The expression.
        values: What names mean, of variables and of attributes.
        depth: How many expressions this one is in.
    """
    if depth > _DEEPEST:
        return None
    if isinstance(node, ast.Name | ast.Attribute):
        return values.get(node.id if isinstance(node, ast.Name) else node.attr)
    if isinstance(node, ast.Tuple | ast.List):
        return _all_known(evaluate_expression(item, values, depth + 1) for item in node.elts[:_LONGEST])
    if isinstance(node, ast.BinOp):
        return _compute(node.op, *(evaluate_expression(side, values, depth + 1) for side in (node.left, node.right)))
    if isinstance(node, ast.ListComp | ast.GeneratorExp) and len(node.generators) == 1 and depth < _IN_EACH:
        inner = node.generators[0]
        items = evaluate_expression(inner.iter, values, depth + 1)
        if not _is_flat(items) or inner.ifs or not isinstance(inner.target, ast.Name):
            return None
        return _all_known(evaluate_expression(node.elt, {inner.target.id: item}, _IN_EACH) for item in items)
    if isinstance(node, ast.Call) and len(node.args) == 1:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return evaluate_expression(node.args[0], values, depth + 1) if name in _SEQUENCES else None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _all_known(items: Iterable[Any]) -> list[Any] | None:
    """All of them; None if one is None."""
    known = []
    for item in items:
        if item is None:
            return None
        known.append(item)
    return known


def _is_flat(value: Any) -> bool:
    """Whether it is a list of a few numbers or texts."""
    return isinstance(value, list | tuple) and len(value) <= _MOST_NUMBERS and not any(map(_is_list, value))


def _is_small(value: Any) -> bool:
    """Whether it is a number, a text, or a list of a few of them or of lists of them: names in names grow fast."""
    if isinstance(value, list | tuple):
        return len(value) <= _MOST_NUMBERS and all(_is_flat(item) or not _is_list(item) for item in value)
    return isinstance(value, int | float | str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | dict | set)


def _compute(operator: ast.operator, left: Any, right: Any) -> Any:
    """A quotient or product of a number, or of each of several, and a number."""
    if _is_flat(left):
        return _all_known(_compute(operator, item, right) for item in left)
    if not all(isinstance(side, int | float) and not isinstance(side, bool) for side in (left, right)):
        return None
    try:
        if isinstance(operator, ast.Div):
            return left / right
        return float(left) * float(right) if isinstance(operator, ast.Mult) else None
    except ArithmeticError:
        return None
