"""The book and the pages of the repository: links, anchors, the table of contents, commands that exist."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "docs/book/mkdocs.yml"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "models").glob("*/README.md")),
]
SOURCES = [
    *(ROOT / name for name in ("Snakefile", "Makefile", "config.yaml", "pyproject.toml")),
    *(
        path
        for folder in ("scripts", "rules", "envs", "profiles", "models", "tests")
        for path in (ROOT / folder).rglob("*.*")
    ),
]


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def links(page: Path) -> Iterator[str]:
    """Targets of the links and pictures of a page."""
    for block in tokens(page):
        for token in block.children or ():
            if target := token.attrGet("href") or token.attrGet("src"):
                yield str(target)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading, text in zip(tokens(page), tokens(page)[1:], strict=False):
        if heading.type == "heading_open":
            plain = "".join(part.content for part in text.children or ())
            anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return found


def commands() -> Iterator[tuple[Path, list[str]]]:
    """The commands in the shell blocks of all pages, without their comments, in words."""
    for page in PAGES:
        for token in tokens(page):
            if token.type == "fence" and token.info == "sh":
                for line in token.content.replace("\\\n", " ").splitlines():
                    yield page, line.partition(" #")[0].split()


def pages_in(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_in(entry)


def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in links(page):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target}: there is no such file"
        assert not anchor or anchor in anchors(file.resolve()), f"{target}: {path or 'the page'} has no such heading"


def test_every_page_is_in_the_book_once() -> None:
    nav = sorted(pages_in(yaml.safe_load(BOOK.read_text())["nav"]))
    assert nav == sorted([*(path.name for path in (ROOT / "docs").glob("*.md")), "CONTRIBUTING.md", "CHANGELOG.md"])


def test_every_page_that_the_sources_name_is_there() -> None:
    for source in SOURCES:
        if source.is_file() and source.suffix in {"", ".py", ".smk", ".yaml", ".toml", ".in", ".json", ".sh", ".txt"}:
            for name in re.findall(r"\bdocs/[\w/]+\.(?:md|rst)\b", source.read_text()):
                assert (ROOT / name).is_file(), f"{source.relative_to(ROOT)} names {name}"


def test_every_make_target_that_the_pages_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(page.name, words[1]) for page, words in commands() if words[:1] == ["make"] and "=" not in words[1]}
    named |= {(page.name, name) for page in PAGES for name in re.findall(r"`make ([a-z-]+)`", page.read_text())}
    assert named
    assert {(page, name) for page, name in named if name not in targets} == set()


def test_no_target_follows_options_that_take_any_number_of_words() -> None:
    """Snakemake would take it for a file or a setting of the configuration."""
    texts = [*(page.read_text() for page in PAGES), *(path.read_text() for path in (ROOT / "studies").glob("*.yaml"))]
    found = [
        words
        for text in texts
        for words in re.findall(r"snakemake [^\n`#]*--config(?:file)? [^\n`#-]* results/\S+", text)
    ]
    assert found == []


def test_every_row_that_the_commands_name_exists() -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    named = {
        (page.name, *row)
        for page, words in commands()
        for word in words
        for row in re.findall(r"^results/(demo|coco)/(?!devices/)(\w+)/(?!devices/)([\w-]+)/", word)
    }
    assert named
    for page, study, model, row in named:
        assert model in config["studies"][study]["models"], f"{page}: {study} has no model {model}"
        assert row in config["variants"], f"{page}: there is no variant {row}"
