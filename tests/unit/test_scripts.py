"""Every script by its command line: help without heavy imports, and options that mean the same everywhere."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "scripts").glob("*.py"))
HEAVY = ("torch", "mmpose", "mmengine", "onnxruntime", "openvino", "ncnn", "pandas", "cv2", "matplotlib", "scipy")


@pytest.fixture(scope="module", params=SCRIPTS, ids=lambda path: path.stem)
def script(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def options(script: Path) -> dict[str, str]:
    """The script's options and the help of each, read from its source."""
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    added = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    return {
        name.value: " ".join(
            part.value
            for keyword in call.keywords
            if keyword.arg == "help"
            for part in ast.walk(keyword.value)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        )
        for call in added
        for name in call.args[:1]
        if isinstance(name, ast.Constant) and isinstance(name.value, str)
    }


def test_help_explains_every_option_and_imports_nothing_heavy(script: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(script)!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "finally:\n"
        "    print(*sorted(sys.modules), sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=script.parent, env={"PYTHONPATH": str(script.parent)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(HEAVY).isdisjoint(done.stderr.split())
    assert all(options(script).values())


def test_what_is_written_is_named_out(script: Path) -> None:
    written = re.compile(r"\b(to write|to create)\b")
    for name, text in options(script).items():
        assert bool(written.search(text)) == name.startswith("--out"), f"{name}: {text}"


def test_parses_its_arguments_as_all_scripts_do(script: Path) -> None:
    names = [node.name for node in ast.parse(script.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert {"parse_arguments", "main"} <= set(names)
