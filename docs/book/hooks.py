"""What the book needs beyond mkdocs: the pages at the top of the repository, links that leave docs/, no network.

On GitHub and in an editor the sources are read as they are, so their links are those of the repository. The book holds
docs/, CONTRIBUTING.md and CHANGELOG.md. A link to any other file of the repository becomes the name of that file.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
AT_THE_TOP = ("CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that GitHub gives them."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the top of the repository."""
    for name in AT_THE_TOP:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Bring the links of a page, which are those of the repository, to the book.

    Raises:
        PluginError: a link leads to no file of the repository.
    """
    name = page.file.src_uri
    source = Path(name if name in AT_THE_TOP else f"docs/{name}")

    def in_the_book(link: re.Match[str]) -> str:
        text = link["text"]
        target = os.path.normpath(source.parent / link["path"])
        if not (ROOT / target).exists():
            raise PluginError(f"{source}: the link to {link['path']} leads to no file")
        in_book = target.startswith("docs/") or target in AT_THE_TOP
        uri = target.removeprefix("docs/")
        if in_book and files.get_file_from_path(uri):
            return f"[{text}]({uri}{link['anchor'] or ''})"
        return f"`{target}`" if text.strip("`/") in target else f"{text} (`{target}`)"

    return LINK.sub(in_the_book, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse what a browser would fetch from a network.

    Raises:
        PluginError: a script, style sheet or picture has an address of another machine.
    """
    if fetched := FETCHED.findall(output):
        raise PluginError(f"{page.file.src_uri} would fetch {', '.join(fetched)}")
    return output
