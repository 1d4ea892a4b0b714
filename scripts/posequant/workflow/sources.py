"""What a configuration names as a file or folder: a path, or something to download."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from posequant.base.errors import InputError
from posequant.base.openmmlab import published_digits

_IS_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MEMBER = re.compile(r"(?P<url>.+?\.zip)/(?P<member>.+)", re.IGNORECASE)
_SHA256 = re.compile(r"sha256=([0-9a-f]{8,64})")


@dataclass(frozen=True)
class Download:
    """A file to download, or what is in an archive to download.

    Attributes:
        url: of the file.
        sha256: hex digits that its SHA-256 begins with; empty if unknown.
        member: what to take from the file, a zip archive: the path of a file or folder inside; empty for the whole.
    """

    url: str
    sha256: str
    member: str

    @property
    def file(self) -> str:
        """Where to keep the file, relative to a folder for all downloads: the host, and the path there."""
        parts = urlsplit(self.url)
        steps = [parts.netloc, *unquote(parts.path).split("/")]
        if parts.query:
            steps[-1] += f"-{parts.query}"
        safe = [re.sub(r"[^A-Za-z0-9._-]", "_", step) for step in steps]
        return "/".join(step for step in safe if step.strip("."))

    @property
    def is_archive(self) -> bool:
        """Whether the file is a zip archive."""
        return urlsplit(self.url).path.lower().endswith(".zip")

    @property
    def content(self) -> str:
        """Where to keep what is taken from an archive, or else the file, relative to the same folder."""
        return f"{self.file}.unpacked/{self.member}".rstrip("/") if self.is_archive else self.file


def parse_source(source: str) -> Download | None:
    """Read what a key of the configuration names; None for a path on this machine.

    A URL can go on into a zip archive, `https://host/images.zip/val2017`, and end in the SHA-256 of the downloaded
    file or its first digits (at least 8), `https://host/weights.pth#sha256=4ec713ba`. Where the name of a file ends as
    OpenMMLab's do, in `-4ec713ba_20200709.pth`, the digits in it count.

    Raises:
        InputError: the URL is not one of HTTP, or its end is not a SHA-256.
    """
    if not _IS_URL.match(source):
        return None
    address, _, fragment = source.partition("#")
    inside = _MEMBER.fullmatch(address)
    url, member = (inside["url"], inside["member"].strip("/")) if inside else (address, "")
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
        raise InputError(f"{source}: not the address of a file; give http://HOST/FILE, https://HOST/FILE or a path")
    if ".." in member.split("/"):
        raise InputError(f"{source}: '..' leads out of the archive")
    given = _SHA256.fullmatch(fragment.lower())
    if fragment and not given:
        raise InputError(f"{source}: after '#' comes sha256= and 8 to 64 hex digits, such as #sha256=4ec713ba")
    return Download(url, given[1] if given else published_digits(parts.path), member)


def find_downloads(config: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Download]]:
    """Yield every download that a configuration names, at any depth, with the last step of its key.

    Raises:
        InputError: with the key, where it does not name what can be downloaded.
    """
    for key, value in config.items():
        path = f"{place}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            yield from find_downloads(value, path)
        elif isinstance(value, str):
            try:
                download = parse_source(value)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
            if download is None:
                continue
            if key == "images" and not download.is_archive:
                raise InputError(f"{path}: {value}: images come in a zip archive; give the address of one, or a folder")
            if key != "images" and download.is_archive and not download.member:
                raise InputError(f"{path}: {value}: go on with the path inside the archive, such as {value}/FILE")
            yield key, download
