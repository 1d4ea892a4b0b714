"""Which of our files a script is made of, so that a workflow can rerun what an edit touches."""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

# A statement that imports, at the start of a line. A sentence of a docstring can look like one.
_IMPORT = re.compile(r"^[ \t]*((?:import|from)\b[^\n(]*(?:\([^)]*\))?)", re.MULTILINE)

_VERSION = "posequant/version.py"


def source_closure(script: Path) -> list[Path]:
    """Return `script` and every module beside it that it imports, directly or through others, sorted after the script.

    Imports are read from the syntax tree, those inside functions included; modules from elsewhere are left out.
    Importing `package.module` runs `package/__init__.py`, which therefore belongs to the closure as well, and with it
    the files of the package that are no modules, such as templates.
    """
    root = script.parent
    found: set[Path] = set()
    waiting = {script}
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting.update(file for file in _imported_files(path, root) if file not in found)
    return [script, *sorted(found - {script})]


def sources_hash(script: Path) -> str:
    """Return a hash, 16 hex digits, of the names and contents of all files in the `source_closure` of a script.

    The file that says which version this is does not count.
    """
    digest = hashlib.sha256()
    for path in source_closure(script):
        if path == script.parent / _VERSION:
            continue
        digest.update(f"{path.relative_to(script.parent)}\0".encode())
        digest.update(hashlib.sha256(_content(path)).digest())
    return digest.hexdigest()[:16]


@cache
def _content(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _imported_files(path: Path, root: Path) -> list[Path]:
    if path.suffix != ".py":
        return []
    text = _content(path).decode()
    try:
        # A tenth of the time that the whole file takes: every job on a cluster waits for it.
        tree = ast.parse("\n".join(_IMPORT.findall(text)))
    except SyntaxError:
        tree = ast.parse(text, filename=str(path))
    files: list[Path] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            files += _files_of_module(name, root)
    return files


@cache
def _files_of_module(name: str, root: Path) -> list[Path]:
    steps = name.split(".")
    packages = [root.joinpath(*steps[:depth], "__init__.py") for depth in range(1, len(steps) + 1)]
    modules = [path for path in [*packages, root.joinpath(*steps).with_suffix(".py")] if path.is_file()]
    return modules + [file for path in modules if path.name == "__init__.py" for file in _other_files(path.parent)]


@cache
def _other_files(package: Path) -> list[Path]:
    # Hidden ones are an editor's or the system's.
    return [path for path in package.iterdir() if path.is_file() and path.suffix != ".py" and path.name[0] != "."]
