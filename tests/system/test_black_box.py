"""The tests in this folder see the service from outside."""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent


def test_black_box_tests_do_not_import_the_package() -> None:
    for path in HERE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "recognizer"], path
