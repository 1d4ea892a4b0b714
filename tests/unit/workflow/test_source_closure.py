import ast
import re
from pathlib import Path

from posequant import __version__
from posequant.workflow.source_closure import source_closure, sources_hash

SCRIPTS = Path(__file__).parents[3] / "scripts"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(script: Path) -> list[str]:
    return [str(path.relative_to(script.parent)) for path in source_closure(script)]


def test_closure_follows_imports_of_every_form(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "run.py": "import numpy\nimport package.direct\nfrom package import chosen\n",
            "package/__init__.py": "",
            "package/direct.py": "def f():\n    from package.inner import late\n",
            "package/chosen.py": "from package.direct import f\n",
            "package/inner/__init__.py": "",
            "package/inner/late.py": "import json\n",
            "package/unused.py": "",
        },
    )
    assert names(tmp_path / "run.py") == [
        "run.py",
        "package/__init__.py",
        "package/chosen.py",
        "package/direct.py",
        "package/inner/__init__.py",
        "package/inner/late.py",
    ]


def test_imports_are_found_among_text_that_looks_like_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "run.py": (
                '"""Text.\n\nfrom here to there, or\nimport of all kinds.\n"""\n'
                "from package import (  # why\n    one,\n    two,\n)\n"
                "if True:\n    import package.three, \\\n        package.four\n"
            ),
            "package/__init__.py": "",
            **dict.fromkeys((f"package/{name}.py" for name in ("one", "two", "three", "four")), ""),
        },
    )
    assert names(tmp_path / "run.py") == [
        "run.py",
        *(f"package/{name}.py" for name in ("__init__", "four", "one", "three", "two")),
    ]


def test_cycles_end(tmp_path: Path) -> None:
    write(tmp_path, {"run.py": "import a", "a.py": "import b", "b.py": "import a"})
    assert names(tmp_path / "run.py") == ["run.py", "a.py", "b.py"]


def test_decoder_belongs_to_prediction_and_not_to_the_export() -> None:
    assert "posequant/evaluate/decode.py" in names(SCRIPTS / "predict.py")
    assert "posequant/evaluate/decode.py" not in names(SCRIPTS / "export.py")


def test_calibration_does_not_depend_on_other_runtimes() -> None:
    assert "posequant/networks/ncnn.py" in names(SCRIPTS / "ncnn2table.py")
    assert "posequant/networks/openvino.py" not in names(SCRIPTS / "ncnn2table.py")


def test_hash_tells_contents_and_names_and_nothing_else(tmp_path: Path) -> None:
    def hash_of(folder: str, files: dict[str, str]) -> str:
        write(tmp_path / folder, files)
        return sources_hash(tmp_path / folder / "run.py")

    files = {"run.py": "import used\n", "used.py": "x = 1\n", "unused.py": ""}
    first = hash_of("first", files)
    assert hash_of("elsewhere and later", files) == first
    assert hash_of("unused edited", {**files, "unused.py": "x = 1\n"}) == first
    assert hash_of("import edited", {**files, "used.py": "x = 2\n"}) != first
    renamed = {"run.py": "import other\n", "other.py": "x = 1\n"}
    assert len({first, hash_of("renamed", renamed), hash_of("script edited", {**files, "run.py": "import used"})}) == 3


def test_templates_of_a_package_belong_to_it_and_hidden_files_do_not(tmp_path: Path) -> None:
    write(tmp_path, {"run.py": "import page\n", "page/__init__.py": "", "page/page.html.j2": "", "page/.swp": ""})
    assert names(tmp_path / "run.py") == ["run.py", "page/__init__.py", "page/page.html.j2"]


def test_another_version_of_the_project_reruns_nothing(tmp_path: Path) -> None:
    files = {
        "run.py": "import posequant\n",
        "posequant/__init__.py": "from posequant.version import __version__\n",
        "posequant/version.py": '__version__ = "1"\n',
    }
    write(tmp_path, files)
    before = sources_hash(tmp_path / "run.py")
    other = tmp_path / "other"
    write(other, files | {"posequant/version.py": '__version__ = "2"\n'})
    assert sources_hash(other / "run.py") == before


def test_version_has_a_place_of_its_own_and_is_that_of_the_changelog() -> None:
    root = SCRIPTS.parent
    statements = ast.parse((SCRIPTS / "posequant/version.py").read_text()).body
    assert [type(statement) for statement in statements] == [ast.Expr, ast.Assign]
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__
    assert f"version: {__version__}\n" in (root / "CITATION.cff").read_text()
