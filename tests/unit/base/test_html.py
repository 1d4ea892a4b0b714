import base64
from pathlib import Path

import pytest

from posequant.base.errors import InputError
from posequant.base.html import page_body, page_html, write_page


def test_page_and_its_html_are_written_with_the_picture_in_the_latter(tmp_path: Path) -> None:
    picture = tmp_path / "draft"
    picture.write_text("<svg/>")
    page = "# The page\n\n![a picture](x.svg)\n"
    write_page(tmp_path / "page.md", page, {"x.svg": picture})
    assert (tmp_path / "page.md").read_text() == page
    html = (tmp_path / "page.html").read_text()
    assert "<title>The page</title>" in html
    assert f'src="data:image/svg+xml;base64,{base64.b64encode(b"<svg/>").decode()}"' in html


def test_tables_are_tables() -> None:
    assert "<td>1</td>" in page_body("| a | b |\n|---|---|\n| 1 | 2 |\n")


def test_links_to_files_are_left_out_and_others_kept() -> None:
    body = page_body("[one](other.md), [two](https://example.org), `[three](x)`, [**four**](y.md)")
    assert body == (
        '<p>one, <a href="https://example.org">two</a>, <code>[three](x)</code>, <strong>four</strong></p>\n'
    )


def test_links_lead_where_they_are_told() -> None:
    body = page_body("[one](a.md) [two](b.md)", target={"a.md": "#a"}.get)
    assert body == '<p><a href="#a">one</a> two</p>\n'


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a </title><b>", "[x](javascript:alert)"])
def test_what_looks_like_html_is_text(text: str) -> None:
    html = page_html(f"# {text}\n\n{text}\n")
    assert "<script>" not in html
    assert "<b>" not in html
    assert 'href="javascript' not in html


def test_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.svg: there is no such picture"):
        write_page(tmp_path / "page.md", "![a](x.svg)")
    assert not any(tmp_path.iterdir())
