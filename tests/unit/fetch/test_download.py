import hashlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.unit.fetch.http_site import Site, chunked, content, serve, status

from posequant.base.errors import InputError
from posequant.data.dataset import ImageFile
from posequant.fetch.calibration_images import (
    fetch_calibration_images,
    fetch_evaluation_images,
    fetch_images,
    image_addresses,
)
from posequant.fetch.download import Patience, download, fetch
from posequant.fetch.unpack import unpack
from posequant.workflow.sources import Download, find_downloads, parse_source

BODY = np.random.default_rng(0).bytes(1_500_000)
OTHER = np.random.default_rng(1).bytes(1_400_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
BREAK = 600 << 10
TAG = {"ETag": '"first"'}
OTHER_TAG = {"ETag": '"second"'}
SOON = Patience(timeout=0.3, attempts=3, first_wait=0.01, longest_wait=2)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "file.bin"


def get(url: str, target: Path, sha256: str = "") -> None:
    fetch(Download(url, sha256, ""), target, SOON)


def left_over(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


# One file


def test_file_arrives_with_its_progress(site: Site, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    get(site.put("/file", content(BODY)), target, SHA256[:8])
    assert target.read_bytes() == BODY
    assert left_over(target) == {"file.bin"}
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "1.43M/1.43M" in shown
    assert "B/s" in shown


def test_file_without_a_stated_length_arrives(site: Site, target: Path) -> None:
    get(site.put("/file", content(BODY, length=-1)), target, SHA256)
    assert target.read_bytes() == BODY


def test_chunked_file_arrives_and_goes_on_where_it_broke(site: Site, target: Path) -> None:
    get(site.put("/whole", chunked(BODY[:BREAK], BODY[BREAK:])), target, SHA256)
    assert target.read_bytes() == BODY
    rest = content(BODY, headers={"ETag": '"chunked"'})
    get(site.put("/broken", chunked(BODY[: BREAK - 6], whole=False), rest), target)
    assert target.read_bytes() == BODY[: BREAK - 6] + b"broken" + BODY[BREAK:]
    assert site.ranges()[-1] == f"bytes={BREAK}-"


def test_existing_file_is_replaced_only_by_a_whole_one(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.write_text("old")
    with pytest.raises(InputError):
        get(site.put("/file", status(404)), target)
    assert target.read_text() == "old"
    get(site.put("/file", content(BODY)), target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("headers", [TAG, {"Last-Modified": formatdate(0, usegmt=True)}, {}, {"ETag": 'W/"weak"'}])
def test_broken_download_goes_on_where_it_stopped(site: Site, target: Path, headers: dict[str, str]) -> None:
    url = site.put("/file", content(BODY, drop_after=BREAK, headers=headers), content(BODY, headers=headers))
    get(url, target, SHA256)
    assert target.read_bytes() == BODY
    assert site.ranges() == [None, f"bytes={BREAK}-"]
    assert left_over(target) == {"file.bin"}


def test_resumed_download_shows_the_whole_size(site: Site, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    get(site.put("/file", content(BODY, drop_after=BREAK, headers=TAG), content(BODY, headers=TAG)), target)
    shown = capsys.readouterr().err
    assert "1.43M/1.43M" in shown
    assert "Trying again in" in shown
    assert "%" in shown.rpartition("1.43M/1.43M")[0]


def test_many_breaks_are_survived_while_something_new_comes(site: Site, target: Path) -> None:
    # More breaks than there are attempts in a row.
    get(site.put("/file", content(BODY, drop_after=1 << 17, headers=TAG)), target, SHA256)
    assert target.read_bytes() == BODY
    assert len(site.requests) == 12


def test_next_call_goes_on_where_the_last_gave_up(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, drop_after=BREAK, headers=TAG), status(503))
    with pytest.raises(InputError, match=r"503 .*Run again to go on"):
        get(url, target)
    assert left_over(target) == {"file.bin.part", "file.bin.part.json"}
    site.put("/file", content(BODY, headers=TAG))
    get(url, target, SHA256)
    assert target.read_bytes() == BODY
    assert site.ranges()[-1] == f"bytes={BREAK}-"


def test_complete_part_is_not_fetched_again(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, drop_after=BREAK, headers=TAG), status(503))
    with pytest.raises(InputError):
        get(url, target)
    target.with_name("file.bin.part").write_bytes(BODY)  # as if it was killed before the last step
    count = len(site.requests)
    get(url, target, SHA256)
    assert target.read_bytes() == BODY
    assert len(site.requests) == count


def test_part_of_another_address_is_not_used(site: Site, target: Path) -> None:
    with pytest.raises(InputError):
        get(site.put("/one", content(OTHER, drop_after=BREAK, headers=TAG), status(503)), target)
    get(site.put("/two", content(BODY, headers=TAG)), target, SHA256)
    assert target.read_bytes() == BODY
    assert site.ranges()[-1] is None


@pytest.mark.parametrize("notes", ["", "[]", "{}", '{"url": 1}'])
def test_part_of_unknown_origin_is_not_used(site: Site, target: Path, notes: str) -> None:
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(b"what is this")
    target.with_name("file.bin.part.json").write_text(notes)
    get(site.put("/file", content(BODY)), target, SHA256)
    assert target.read_bytes() == BODY


def test_server_without_ranges_sends_the_whole_again(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, drop_after=BREAK), content(BODY, ranges=False))
    get(url, target, SHA256)
    assert target.read_bytes() == BODY
    assert site.ranges() == [None, f"bytes={BREAK}-"]


def test_server_without_ranges_that_always_breaks_is_given_up(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, ranges=False, drop_after=BREAK))
    with pytest.raises(InputError, match="the connection broke"):
        get(url, target)
    assert len(site.requests) == 2 * SOON.attempts  # one round brought something, the other nothing


# The file changes between two requests


@pytest.mark.parametrize(
    ("headers", "honours_if_range"),
    [
        (OTHER_TAG, True),  # the server sends all of the new file
        (OTHER_TAG, False),  # it sends a part of it, under its new tag
        ({}, False),  # it sends a part of it, and only the size tells
    ],
)
def test_changed_file_is_started_over(
    site: Site, target: Path, headers: dict[str, str], honours_if_range: bool
) -> None:
    changed = content(OTHER, headers=headers, honours_if_range=honours_if_range)
    get(site.put("/file", content(BODY, drop_after=BREAK, headers=TAG), changed), target)
    assert target.read_bytes() == OTHER


def test_file_that_became_shorter_is_started_over(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, drop_after=BREAK), content(OTHER[:1000], headers=OTHER_TAG))
    get(url, target)
    assert target.read_bytes() == OTHER[:1000]


def test_wrong_part_is_refused(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, drop_after=BREAK), content(BODY, start=BREAK - 1000), content(BODY))
    get(url, target, SHA256)
    assert target.read_bytes() == BODY
    assert site.ranges() == [None, f"bytes={BREAK}-", None]


# Lengths that are not true


def test_length_claimed_too_long_is_given_up_and_named(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, ranges=False, length=len(BODY) + 10))
    with pytest.raises(InputError, match="the connection broke") as fault:
        get(url, target)
    assert url in str(fault.value)
    assert not target.exists()


def test_total_claimed_too_long_in_a_part_is_started_over(site: Site, target: Path) -> None:
    url = site.put(
        "/file", content(BODY, drop_after=BREAK), content(BODY, total=len(BODY) + 10), content(BODY, headers=TAG)
    )
    get(url, target, SHA256)
    assert target.read_bytes() == BODY


def test_length_claimed_too_short_is_found_by_the_hash(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, length=1_000_000), content(BODY))
    get(url, target, SHA256)
    assert target.read_bytes() == BODY


# Errors of the server


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_refusal_ends_at_once_and_says_what_to_do(site: Site, target: Path, code: int) -> None:
    url = site.put("/file", status(code))
    with pytest.raises(InputError) as fault:
        get(url, target)
    message = str(fault.value)
    assert url in message
    assert f"the server says {code}" in message
    assert f"place it at {target}" in message
    assert "name a path on this machine" in message
    assert len(site.requests) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_error_is_tried_again(site: Site, target: Path, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    get(site.put("/file", status(code), status(code), content(BODY)), target, SHA256)
    assert target.read_bytes() == BODY
    assert f"the server says {code}" in capsys.readouterr().err


def test_lasting_error_is_given_up(site: Site, target: Path) -> None:
    url = site.put("/file", status(500))
    with pytest.raises(InputError, match=f"{url}: cannot be fetched: the server says 500 Internal Server Error"):
        get(url, target)
    assert len(site.requests) == SOON.attempts


@pytest.mark.parametrize("pause", ["1", "date"])
def test_pause_that_the_server_asks_for_is_kept(
    site: Site, target: Path, pause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    value = formatdate(time.time() + 2, usegmt=True) if pause == "date" else pause
    get(site.put("/file", status(429, Retry_After=value), content(BODY)), target, SHA256)
    waited = float(capsys.readouterr().err.partition("Trying again in ")[2].split()[0])
    assert 0.9 <= waited + (pause == "date") <= 3.1


def test_pause_that_is_too_long_is_named(site: Site, target: Path) -> None:
    with pytest.raises(InputError, match="asks to come back in 3600 s"):
        get(site.put("/file", status(503, Retry_After="3600")), target)
    assert len(site.requests) == 1


def test_hanging_server_is_asked_again(site: Site, target: Path) -> None:
    get(site.put("/file", site.hang(), content(BODY)), target, SHA256)
    assert target.read_bytes() == BODY


def test_unreachable_server_is_given_up_and_named(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as closed:
        url = closed.put("/file", content(BODY))
    with pytest.raises(InputError, match=r"the connection broke .*[Rr]efused") as fault:
        get(url, target)
    assert url in str(fault.value)


def test_redirect_without_end_is_named(site: Site, target: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be fetched: .*redirects"):
        get(site.put("/file", status(302, Location=f"{site.url}/file")), target)


# Content that is not what it should be


def test_corrupt_copy_is_deleted_named_and_fetched_again(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = site.put("/file", content(OTHER), content(BODY))
    get(url, target, SHA256[:8])
    assert target.read_bytes() == BODY
    assert f"{url}: a corrupt copy was deleted: its SHA-256 begins with" in capsys.readouterr().err


def test_lasting_corruption_is_given_up(site: Site, target: Path) -> None:
    url = site.put("/file", content(OTHER))
    with pytest.raises(InputError, match=f"every copy was corrupt.*should be {SHA256[:16]}"):
        get(url, target, SHA256)
    assert len(site.requests) == 3
    assert left_over(target) == set()


def test_corrupt_part_of_an_earlier_call_is_fetched_again(site: Site, target: Path) -> None:
    url = site.put("/file", content(BODY, drop_after=BREAK, headers=TAG), status(503))
    with pytest.raises(InputError):
        get(url, target)
    target.with_name("file.bin.part").write_bytes(bytes(BREAK))
    site.put("/file", content(BODY, headers=TAG))
    get(url, target, SHA256)
    assert target.read_bytes() == BODY


def test_truncated_archive_is_fetched_again(site: Site, tmp_path: Path) -> None:
    packed = archive({"a/one.txt": b"1" * 1000})
    url = site.put("/file.zip", content(packed[:-30]), content(packed))
    fetch(Download(url, "", "a"), tmp_path / "file.zip", SOON)
    assert (tmp_path / "file.zip").read_bytes() == packed


# What a configuration names


def test_url_says_where_its_file_belongs() -> None:
    source = parse_source(
        "https://download.openmmlab.com/mmpose/top_down/hourglass/hourglass52_coco_256x256-4ec713ba_20200709.pth"
    )
    assert source is not None
    assert source.sha256 == "4ec713ba"
    assert source.content == source.file
    assert (
        source.file == "download.openmmlab.com/mmpose/top_down/hourglass/hourglass52_coco_256x256-4ec713ba_20200709.pth"
    )


def test_url_goes_on_into_an_archive() -> None:
    source = parse_source(f"http://host:80/coco.zip/annotations/val.json#sha256={SHA256}")
    assert source == Download("http://host:80/coco.zip", SHA256, "annotations/val.json")
    assert source.file == "host_80/coco.zip"
    assert source.content == "host_80/coco.zip.unpacked/annotations/val.json"


@pytest.mark.parametrize("path", ["file.pth", "/data/file.pth", "data/coco.zip/file", "C:/file"])
def test_path_is_no_download(path: str) -> None:
    assert parse_source(path) is None


@pytest.mark.parametrize("url", ["https://h/../../etc/passwd", "https://h/a/%2e%2e/b?x=/../..", "http://../file"])
def test_download_stays_in_its_folder(url: str) -> None:
    source = parse_source(url)
    assert source is not None
    assert not source.file.startswith("/")
    assert ".." not in source.file.split("/")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ftp://host/file", "not the address of a file"),
        ("https://host", "not the address of a file"),
        ("https://host/f#sha256=xyz", "8 to 64 hex digits"),
        ("https://host/f#md5=0123456789", "8 to 64 hex digits"),
        ("https://host/f.zip/../x", "leads out of the archive"),
        ("https://host/f.zip", "go on with the path inside the archive"),
    ],
)
def test_bad_address_is_named_with_its_key(value: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as fault:
        list(find_downloads({"mine": {"models": {"net": {"checkpoint": value}}}}))
    assert str(fault.value).startswith("mine.models.net.checkpoint: ")


def test_images_must_come_in_an_archive() -> None:
    with pytest.raises(InputError, match=r"^val\.images: .*zip archive"):
        list(find_downloads({"val": {"images": "https://host/images"}}))


# Archives


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, data in files.items():
            writer.writestr(name, data)
    return packed.getvalue()


def write_archive(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "file.zip"
    path.write_bytes(archive(files))
    return path


def test_folder_file_and_everything_are_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_archive(tmp_path, {"val/": b"", "val/1.jpg": b"one", "val/sub/2.jpg": b"two", "value/3.jpg": b"three"})
    unpack(path, "val", tmp_path / "val")
    assert {file.relative_to(tmp_path / "val").as_posix() for file in (tmp_path / "val").rglob("*.jpg")} == {
        "1.jpg",
        "sub/2.jpg",
    }
    unpack(path, "val/1.jpg", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == b"one"
    unpack(path, "", tmp_path / "all")
    assert (tmp_path / "all/value/3.jpg").read_bytes() == b"three"
    assert "11.0/11.0" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../outside", "val/../../outside", "/outside", "val\\..\\outside"])
def test_path_that_leads_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = write_archive(tmp_path, {"val/1.jpg": b"one", name: b"evil"})
    with pytest.raises(InputError, match="leads out of the archive"):
        unpack(path, "", tmp_path / "deep" / "target")
    assert {entry.name for entry in tmp_path.iterdir()} == {"file.zip"}


def test_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    with zipfile.ZipFile(path, "w") as writer:
        link = zipfile.ZipInfo("val/link")
        link.external_attr = 0o120777 << 16
        writer.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="leads out of the archive"):
        unpack(path, "val", tmp_path / "target")


def test_missing_member_names_what_is_there(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {"val2017/1.jpg": b"one"})
    with pytest.raises(InputError, match=r"has no 'val'; at its top are val2017"):
        unpack(path, "val", tmp_path / "target")


def test_truncated_and_corrupt_archives_are_named(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(100_000)
    path = write_archive(tmp_path, {"val/1.jpg": data})
    packed = path.read_bytes()
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"file\.zip: the archive is damaged or truncated"):
        unpack(path, "val", tmp_path / "target")
    flipped = bytearray(packed)
    struct.pack_into("B", flipped, len(packed) // 2, flipped[len(packed) // 2] ^ 0xFF)
    path.write_bytes(flipped)
    with pytest.raises(InputError, match=r"file\.zip: the archive is damaged or truncated"):
        unpack(path, "val", tmp_path / "target")


def test_encrypted_archive_is_named(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {"val/1.jpg": b"one"})
    content = bytearray(path.read_bytes())
    # The flag in the entry's own header, and in the list at the end.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"file\.zip: 'val/1\.jpg' is encrypted\. Unpack it by hand"):
        unpack(path, "val", tmp_path / "target")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["val/1.jpg", "val/1.jpg"], "holds two files of the name 'val/1.jpg'"),
        (["val/1.jpg", "val/./1.jpg"], "holds two files of the name 'val/1.jpg'"),
        (["val/a", "val/a/1.jpg"], "'val/a' is a file and a folder"),
        (["val/a/b/1.jpg", "val/a"], "'val/a' is a file and a folder"),
        (["val", "val/1.jpg"], "'val' is a file and a folder"),
    ],
)
def test_names_that_clash_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    path = tmp_path / "file.zip"
    with zipfile.ZipFile(path, "w") as writer:
        for name in names:
            writer.writestr(name, name)
    with pytest.raises(InputError, match=rf"file\.zip: {message}\. Unpack it by hand"):
        unpack(path, "val", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_name_that_is_too_long_is_named(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {f"val/{'x' * 300}": b"one"})
    with pytest.raises(InputError, match=r"file\.zip: cannot be unpacked to .*target \(File name too long\)"):
        unpack(path, "val", tmp_path / "target")


def test_archive_that_unfolds_without_measure_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {"val/zeros": bytes(150_000_000), "other/1.jpg": b"one"})
    with pytest.raises(InputError, match=r"file\.zip: its \d+ bytes would unfold to 0\.15 GB, \d+ times as much"):
        unpack(path, "val", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    unpack(path, "other", tmp_path / "target")  # only what is asked for counts


def test_archive_that_is_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    path = tmp_path / "file.zip"
    with path.open("wb") as stream:
        stream.truncate(free // 25)  # takes no room, and what is before an archive is not looked at
    with zipfile.ZipFile(path, "a") as writer:
        writer.writestr("val/1.jpg", b"one")
        writer.infolist()[0].file_size = 2 * free
    with pytest.raises(InputError, match=r"file\.zip: unfolds to \S+ GB, but .* has \S+ GB free"):
        unpack(path, "val", tmp_path / "target")


# Images one by one


def picture(seed: int, width: int = 60, height: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", pixels)[1])


@pytest.fixture
def images(site: Site) -> dict[ImageFile, str]:
    return {
        ImageFile(number, f"{number:012d}.jpg", 60, 40): site.put(f"/train/{number:012d}.jpg", content(picture(number)))
        for number in range(12)
    }


def test_images_are_fetched_and_kept(
    site: Site, images: dict[ImageFile, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_images(images, tmp_path / "images", patience=SOON)
    for image in images:
        assert (tmp_path / "images" / image.file_name).read_bytes() == picture(image.id)
    assert "12/12" in capsys.readouterr().err
    fetch_images(images, tmp_path / "images", patience=SOON)
    assert len(site.requests) == len(images)


def test_damaged_images_are_fetched_again(site: Site, images: dict[ImageFile, str], tmp_path: Path) -> None:
    first, second, third, *_ = images
    site.put(f"/train/{first.file_name}", content(picture(0)[:-100]), content(picture(0)))
    fetch_images(images, tmp_path, patience=SOON)
    (tmp_path / second.file_name).write_bytes(picture(1)[:-100])
    (tmp_path / third.file_name).write_bytes(picture(2, width=61))
    fetch_images(images, tmp_path, patience=SOON)
    for image in images:
        assert (tmp_path / image.file_name).read_bytes() == picture(image.id)
    assert len(site.requests) == len(images) + 1 + 2


def test_image_of_another_size_is_refused(site: Site, images: dict[ImageFile, str], tmp_path: Path) -> None:
    first, *_ = images
    url = site.put(f"/train/{first.file_name}", content(picture(0, height=41)))
    with pytest.raises(InputError, match=r"60x41 pixels, but its annotation says 60x40") as fault:
        fetch_images(images, tmp_path, patience=SOON)
    assert url in str(fault.value)


def test_missing_image_is_named_and_the_others_stay(site: Site, images: dict[ImageFile, str], tmp_path: Path) -> None:
    *_, last = images
    url = site.put(f"/train/{last.file_name}", status(404))
    with pytest.raises(InputError, match=f"{url}: cannot be fetched: the server says 404"):
        fetch_images(images, tmp_path, connections=1, patience=SOON)
    assert len(list(tmp_path.iterdir())) == len(images) - 1


def test_image_outside_of_the_folder_is_refused(site: Site, images: dict[ImageFile, str], tmp_path: Path) -> None:
    first, *_ = images
    with pytest.raises(InputError, match="leads out of the folder"):
        fetch_images({replace(first, file_name="../../evil.jpg"): images[first]}, tmp_path, patience=SOON)
    assert site.requests == []


def write_calibration_set(folder: Path, images: dict[ImageFile, str]) -> tuple[Path, Path]:
    """Two people of each image are chosen; the annotations have one image more."""
    person = {"bbox": [1, 2, 30, 40], "keypoints": [0] * 51, "area": 600}
    people = [{"image": vars(image), **person} for image in images for _ in range(2)]
    entries = [{**vars(image), "coco_url": url} for image, url in images.items()]
    entries.append({**vars(next(iter(images))), "id": 99})
    annotated = person | {"id": 1, "image_id": 99, "category_id": 1, "iscrowd": 0, "num_keypoints": 0}
    calibration, annotations = folder / "calibration.json", folder / "annotations.json"
    calibration.write_text(json.dumps({"people": people}))
    annotations.write_text(json.dumps({"images": entries, "annotations": [annotated], "categories": []}))
    return calibration, annotations


def test_chosen_images_appear_together(site: Site, images: dict[ImageFile, str], tmp_path: Path) -> None:
    calibration, annotations = write_calibration_set(tmp_path, images)
    *_, last = images
    site.put(f"/train/{last.file_name}", status(404))
    folder = tmp_path / "images"
    with pytest.raises(InputError, match="404"):
        fetch_calibration_images(calibration, annotations, folder)
    assert not folder.exists()
    site.requests.clear()
    site.put(f"/train/{last.file_name}", content(picture(last.id)))
    fetch_calibration_images(calibration, annotations, folder)
    assert {path.name for path in folder.iterdir()} == {image.file_name for image in images}
    assert len(site.requests) < len(images)


def test_images_that_are_known_are_copied_and_the_damaged_fetched(
    images: dict[ImageFile, str], site: Site, tmp_path: Path
) -> None:
    calibration, annotations = write_calibration_set(tmp_path, images)
    first, second, *others = images
    known, folder = tmp_path / "known", tmp_path / "images"
    known.mkdir()
    (known / first.file_name).write_bytes(picture(first.id))
    (known / second.file_name).write_bytes(picture(second.id)[:-10])
    site.requests.clear()
    fetch_calibration_images(calibration, annotations, folder, known)
    assert {path for path, _ in site.requests} == {f"/train/{image.file_name}" for image in (second, *others)}
    assert {path.name for path in folder.iterdir()} == {image.file_name for image in images}
    assert (folder / first.file_name).read_bytes() == picture(first.id)


def test_all_images_of_an_evaluation_set_are_fetched(images: dict[ImageFile, str], tmp_path: Path) -> None:
    _, annotations = write_calibration_set(tmp_path, images)
    folder = tmp_path / "images"
    with pytest.raises(InputError, match=r"image 99 has no coco_url .* the `images` of the dataset's `val`"):
        fetch_evaluation_images(annotations, folder)
    said = json.loads(annotations.read_text())
    annotations.write_text(
        json.dumps(
            said
            | {
                "images": said["images"][:-1],
                "annotations": [said["annotations"][0] | {"image_id": said["images"][0]["id"]}],
            }
        )
    )
    fetch_evaluation_images(annotations, folder)
    assert {path.name for path in folder.iterdir()} == {image.file_name for image in images}


@pytest.mark.parametrize("address", ["", None, 7, ["http://host/1.jpg"]])
def test_image_without_an_address_is_named(images: dict[ImageFile, str], tmp_path: Path, address: Any) -> None:
    calibration, annotations = write_calibration_set(tmp_path, dict.fromkeys(images, address))
    with pytest.raises(InputError, match="image 0 has no coco_url"):
        image_addresses(calibration, annotations)


def test_file_that_cannot_be_written_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").mkdir()
    (tmp_path / "file.bin.part" / "occupied").touch()
    with pytest.raises(InputError, match=r"file\.bin\.part: cannot be written"):
        download(site.put("/file", content(BODY)), tmp_path / "file.bin", lambda _: None, SOON)
