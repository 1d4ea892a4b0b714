"""Take the pictures of docs/images from the report of the demo, in a browser without a window."""

import argparse
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

# Of what is shown, with how much room around it, in pixels.
MARGIN = 12
# Of the window, in pixels.
WIDTH = 1200


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, required=True, help="report.html of the demo")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    arguments = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("error: there is no Chromium. On Debian: apt-get install chromium")
    if not arguments.report.is_file():
        sys.exit(f"error: {arguments.report} does not exist. Make it first: make result")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(arguments.report.resolve().as_uri())
        for plot in page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            plot.locator(".main-svg").first.wait_for()
        page.evaluate("window.scrollTo(0, 0)")
        shoot(page, ["header", ".cards"], arguments.out / "report.png")
        shoot(page, ["figure[id$=-oks]", "figure[id$=-tradeoff]"], arguments.out / "figures.png")
        shoot(page, [".person:nth-child(1)", ".person:nth-child(3)"], arguments.out / "poses.png")
        browser.close()


def shoot(page: Page, parts: list[str], target: Path) -> None:
    """Write a picture of the part of the page that holds all of `parts`, in few colours."""
    boxes = [page.locator(part).first.bounding_box() for part in parts]
    known = [box for box in boxes if box]
    left, top = (min(box[side] for box in known) - MARGIN for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in known) + MARGIN
    bottom = max(box["y"] + box["height"] for box in known) + MARGIN
    left, top = max(left, 0), max(top, 0)
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    page.screenshot(path=target, full_page=True, clip=clip)
    Image.open(target).convert("RGB").quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    main()
