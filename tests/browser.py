"""Pages opened in a real browser, which must neither complain nor reach for the network."""

import atexit
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (on Debian: apt-get install chromium)")


@cache
def _browser() -> Browser:
    playwright = sync_playwright().start()
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    atexit.register(playwright.stop)
    atexit.register(browser.close)
    return browser


@contextmanager
def opened(
    page: Path, *, width: int = 1400, complaints: tuple[str, ...] = ("error", "warning"), **settings: Any
) -> Iterator[Page]:
    """Open a file as by a double click; on leaving, nothing may have been complained of or asked from a network.

    Args:
        page: the file.
        width: of the window, in pixels.
        complaints: kinds of messages in the browser's console that count.
        settings: of the browser's context, as Playwright names them.
    """
    said: list[str] = []
    requests: list[str] = []
    context = _browser().new_context(viewport={"width": width, "height": 900}, **settings)
    try:
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: said.append(message.text) if message.type in complaints else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.resolve().as_uri())
        yield tab
    finally:
        context.close()
    assert said == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
