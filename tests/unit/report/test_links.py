"""A page that is read from another folder."""

import pytest

from posequant.report.links import relocated


@pytest.mark.parametrize(
    ("page", "moved"),
    [
        ("[log](net/evaluate.log)", "[log](demo/net/evaluate.log)"),
        ("![picture](result.svg)", "![picture](demo/result.svg)"),
        ("[a](b.md), [c](d.md#part)", "[a](demo/b.md), [c](demo/d.md#part)"),
        ("[here](#certificates)", "[here](#certificates)"),
        ("[there](https://host/x.md) [mail](mailto:a@b)", "[there](https://host/x.md) [mail](mailto:a@b)"),
        ("[root](/data/x.md)", "[root](/data/x.md)"),
        ("| [-0.1, +0.2] (text) |", "| [-0.1, +0.2] (text) |"),
    ],
)
def test_relative_links_start_from_the_new_folder(page: str, moved: str) -> None:
    assert relocated(page, "demo") == moved
