"""Pages of Markdown as HTML that needs no other file."""

import base64
import mimetypes
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from posequant.base.errors import InputError
from posequant.base.files import whole

_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 900px; margin: 1.5rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
body { overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .9rem; }
table { display: block; overflow-x: auto; width: max-content; max-width: 100%; }
th, td { border: 1px solid #8884; padding: .3rem .6rem; text-align: left; white-space: nowrap; }
img { max-width: 100%; height: auto; background: #fff; }
pre { overflow-x: auto; padding: .7rem; background: #8881; }
"""


def write_page(target: Path, markdown: str, pictures: Mapping[str, Path] | None = None) -> None:
    """Write a page of Markdown and, beside it, the same as HTML that needs no other file.

    Args:
        target: the Markdown file; the other has the ending `.html`.
        markdown: the page.
        pictures: the files of the pictures that it shows, by their links.

    Raises:
        InputError: a picture is missing.
    """
    with whole(target) as draft, whole(target.with_suffix(".html")) as html:
        draft.write_text(markdown)
        html.write_text(page_html(markdown, pictures=pictures))


def page_html(markdown: str, *, pictures: Mapping[str, Path] | None = None) -> str:
    """Return a page as a file of HTML by itself: its pictures are in it, its links to other files are not.

    Args:
        markdown: the page; its first heading is the title.
        pictures: the files of the pictures that it shows, by their links.

    Raises:
        InputError: a picture is missing.
    """
    title = next((line.lstrip("# ") for line in markdown.splitlines() if line.startswith("#")), "")
    body = page_body(markdown, pictures=pictures)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def page_body(
    markdown: str,
    *,
    folder: Path | None = None,
    pictures: Mapping[str, Path] | None = None,
    target: Callable[[str], str | None] = lambda link: None,
) -> str:
    """Return the HTML of a page of Markdown, with its pictures in it.

    Args:
        markdown: the page. HTML in it is taken as text.
        folder: where the pictures lie that it names.
        pictures: files of pictures that lie elsewhere yet, by their links.
        target: where a link leads instead, for links to other files; None leaves the link's text alone.

    Raises:
        InputError: a picture is missing.
    """
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for inline in tokens:
        kept: list[Token] = []
        dropped: list[bool] = []
        for token in inline.children or ():
            if token.type == "image":
                link = str(token.attrs["src"])
                token.attrs["src"] = _data_address((pictures or {}).get(link) or (folder or Path()) / link)
            elif token.type == "link_open":
                link = str(token.attrs["href"])
                leads = link if link.startswith(("https:", "http:", "mailto:")) else target(link)
                dropped.append(leads is None)
                if leads is None:
                    continue
                token.attrs["href"] = leads
            elif token.type == "link_close" and dropped.pop():
                continue
            kept.append(token)
        inline.children = kept if inline.children is not None else None
    html: str = parser.renderer.render(tokens, parser.options, {})
    return html


def _data_address(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: there is no such picture, but a page shows it. Make both again.")
    kind = mimetypes.guess_type(path.name)[0] or "image/svg+xml"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
