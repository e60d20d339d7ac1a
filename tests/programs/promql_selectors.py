"""Parse PromQL expressions (a JSON list in a file) and print for each, as JSON, the series that it reads: [[name,
[label, …]], …].

A label counts where it is matched, and where an aggregation over the series groups by it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import promql_parser as promql


def selectors(expression: str) -> list[tuple[str, list[str]]]:
    selected: list[tuple[str, set[str]]] = []
    _read(promql.parse(expression), frozenset(), selected)
    return [(name, sorted(labels)) for name, labels in selected]


def _read(node: Any, grouped: frozenset[str], selected: list[tuple[str, set[str]]]) -> None:
    if isinstance(node, promql.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, promql.VectorSelector):
        selected.append((node.name, {matcher.name for matcher in node.matchers.matchers} | grouped))
    elif isinstance(node, promql.AggregateExpr):
        _read(node.expr, grouped | set(node.modifier.labels if node.modifier else ()), selected)
    elif isinstance(node, promql.BinaryExpr):
        _read(node.lhs, grouped, selected)
        _read(node.rhs, grouped, selected)
    elif isinstance(node, promql.Call):
        for arg in node.args:
            _read(arg, grouped, selected)
    elif isinstance(node, (promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
        _read(node.expr, grouped, selected)


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps([selectors(expression) for expression in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))])
    )
