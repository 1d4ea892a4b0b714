"""Links of a Markdown page that is read from another folder."""

import re

# A link or a picture: what follows its text in brackets.
_TARGET = re.compile(r"\]\((?P<target>[^()\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|[#/]", re.IGNORECASE)


def relocated(page: str, folder: str) -> str:
    """Return a page whose relative links start from another folder.

    Args:
        page: Markdown; addresses, absolute paths and links within the page stay as they are.
        folder: where the page was made, as seen from where it is read.
    """

    def moved(match: "re.Match[str]") -> str:
        target = match["target"]
        return match[0] if _ELSEWHERE.match(target) else f"]({folder}/{target})"

    return _TARGET.sub(moved, page)
