"""Which of our files a script is made of, so that a workflow can rerun what an edit touches."""

import ast
import hashlib
from functools import cache
from pathlib import Path


def source_closure(script: Path) -> list[Path]:
    """Return `script` and every module beside it that it imports, directly or through others, sorted after the script.

    Imports are read from the syntax tree, those inside functions included; modules from elsewhere are left out.
    Importing `package.module` runs `package/__init__.py`, which therefore belongs to the closure as well.
    """
    root = script.parent
    found: list[Path] = []
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.append(path)
            waiting += _imported_files(path, root)
    return [script, *sorted(path for path in found if path != script)]


def sources_hash(script: Path) -> str:
    """Return a hash, 16 hex digits, of the names and contents of all files in the `source_closure` of a script."""
    digest = hashlib.sha256()
    for path in source_closure(script):
        digest.update(f"{path.relative_to(script.parent)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@cache
def _imported_files(path: Path, root: Path) -> list[Path]:
    files = []
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            files += _files_of_module(name, root)
    return files


def _files_of_module(name: str, root: Path) -> list[Path]:
    steps = name.split(".")
    packages = [root.joinpath(*steps[:depth], "__init__.py") for depth in range(1, len(steps) + 1)]
    return [path for path in [*packages, root.joinpath(*steps).with_suffix(".py")] if path.is_file()]
