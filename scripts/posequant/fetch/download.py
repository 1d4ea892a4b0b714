"""Downloads over HTTP that arrive whole or not at all, survive a broken connection, and are checked.

requests speaks HTTP and tenacity waits between attempts. pooch and torch.hub fetch and check files too, but neither
goes on where a broken download stopped.
"""

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import requests
import tenacity
from requests.structures import CaseInsensitiveDict
from tqdm import tqdm
from urllib3 import Retry
from urllib3.exceptions import HTTPError, InvalidHeader

from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256, write_json
from posequant.workflow.sources import Download

_CHUNK = 1 << 18
# What passes if one waits: a timeout, too many requests, and every fault of the server's own (5xx).
_PASSING_STATUS = {408, 425, 429}
_COPIES = 3


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server; times in seconds.

    Attributes:
        timeout: without a byte, after which a connection counts as broken.
        attempts: in a row that bring nothing new, after which to give up.
        first_wait: before the second attempt; it doubles from one to the next, with up to as much again at random.
        longest_wait: between two attempts; a server that asks for more (Retry-After) is given up.
    """

    timeout: float = 30
    attempts: int = 6
    first_wait: float = 1
    longest_wait: float = 120


class _BrokenError(Exception):
    """An attempt failed in a way that may pass; `retry_after` is the pause in seconds that the server asks for."""

    def __init__(self, fault: str, retry_after: float = 0) -> None:
        super().__init__(fault)
        self.retry_after = retry_after


def fetch(source: Download, target: Path, patience: Patience | None = None) -> None:
    """Download the file of `source` to `target`, check it, and show the progress.

    An archive must be readable as one; where the SHA-256 is known, it must be that.

    Raises:
        InputError: as `download`.
    """

    def require_sound(path: Path) -> None:
        digest = sha256(path)
        if not digest.startswith(source.sha256):
            raise InputError(f"its SHA-256 begins with {digest[:16]}, which should be {source.sha256[:16]}")
        if source.is_archive and not is_zipfile(path):
            raise InputError("it is not a zip archive, or a truncated one")

    download(source.url, target, require_sound, patience)


def download(
    url: str,
    target: Path,
    require_sound: Callable[[Path], None],
    patience: Patience | None = None,
    show_progress: bool = True,
) -> None:
    """Download one file, whole or not at all.

    What has arrived is kept in `TARGET.part`. The next attempt, or the next call, asks for the rest (RFC 9110, section
    14: Range, If-Range, Content-Range) and starts over where the server does not serve parts or the file has changed.

    Args:
        url: http or https.
        target: file to write; an existing one is replaced.
        require_sound: called with the complete file under another name; raises `InputError`, saying what is wrong, if
            the content is corrupt. Such a copy is deleted and fetched again, three times in all.
        patience: with the server.
        show_progress: with size and rate, to stderr.

    Raises:
        InputError: the server refuses the file, cannot be reached, or sends nothing but corrupt copies; or the file
            cannot be written. The message says the URL and what to do.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    bar = tqdm(desc=target.name, unit="B", unit_scale=True, unit_divisor=1024, mininterval=2, disable=not show_progress)
    with closing(bar):
        transfer = _Transfer(url, target, patience or Patience(), bar)
        for copy in range(1, _COPIES + 1):
            transfer.run()
            try:
                require_sound(transfer.part)
            except InputError as fault:
                transfer.discard()
                if copy == _COPIES:
                    raise transfer.failure(f"fetched {copy} times, and every copy was corrupt: {fault}") from fault
                _say(f"{url}: a corrupt copy was deleted: {fault}. Fetching it again.")
            else:
                transfer.part.replace(target)
                transfer.discard()
                return


class _Transfer:
    """One file on its way: its beginning in `TARGET.part`, and in `TARGET.part.json` what the server said of it."""

    def __init__(self, url: str, target: Path, patience: Patience, bar: "tqdm[Any]") -> None:
        self.part = target.with_name(f"{target.name}.part")
        self._notes = target.with_name(f"{target.name}.part.json")
        self._url, self._target, self._patience, self._bar = url, target, patience, bar
        self._most_received = 0

    def run(self) -> None:
        """Bring the file in full to `part`; `InputError` if that cannot be done."""
        try:
            while True:
                before = self._most_received
                try:
                    self._attempts()(self._attempt)
                    return
                except _BrokenError as fault:
                    if self._most_received == before:
                        raise self.failure(f"{fault}. Run again to go on where it stopped") from fault
        except requests.RequestException as fault:
            raise self.failure(str(fault)) from fault
        except OSError as fault:
            raise InputError(f"{self.part}: cannot be written ({fault.strerror})") from fault

    def discard(self) -> None:
        """Delete what has arrived."""
        self.part.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def failure(self, fault: str) -> InputError:
        """Return the error that says what went wrong with which URL, and what to do."""
        return InputError(
            f"{self._url}: cannot be fetched: {fault}. Check the address, or fetch the file by other means and place "
            f"it at {self._target}, or name a path on this machine in its place."
        )

    def _attempts(self) -> tenacity.Retrying:
        patience = self._patience
        back_off = tenacity.wait_exponential_jitter(
            multiplier=patience.first_wait, jitter=patience.first_wait, max=patience.longest_wait
        )
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_BrokenError),
            stop=tenacity.stop_after_attempt(patience.attempts),
            wait=back_off + tenacity.wait_exception(lambda fault: getattr(fault, "retry_after", 0)),
            before_sleep=self._say_when,
            reraise=True,
        )

    def _say_when(self, state: tenacity.RetryCallState) -> None:
        fault = state.outcome and state.outcome.exception()
        _say(f"{self._url}: {fault}. Trying again in {state.upcoming_sleep:.1f} s.")

    def _attempt(self) -> None:
        """Ask for what is missing; `_BrokenError` unless all of it arrives."""
        received, size, validator = self._remembered()
        if received == size:
            return
        # Compressed on the way, a file has another length, and its parts do not fit together.
        headers = {"Accept-Encoding": "identity"}
        if received:
            headers |= {"Range": f"bytes={received}-"} | ({"If-Range": validator} if validator else {})
        try:
            with requests.get(self._url, headers=headers, stream=True, timeout=self._patience.timeout) as response:
                self._require_success(response)
                self._receive(response, received, size, validator)
        except (requests.ConnectionError, requests.Timeout, HTTPError) as fault:
            raise _BrokenError(f"the connection broke ({_root(fault)})") from fault

    def _remembered(self) -> tuple[int, int | None, str]:
        """Return the bytes that are there, the size of the file and its validator, as the last attempt left them."""
        try:
            notes = read_json(self._notes)
            if notes["url"] == self._url and (notes["validator"] or notes["size"]):
                return self.part.stat().st_size, notes["size"], notes["validator"]
        except (InputError, KeyError, TypeError, FileNotFoundError):
            pass
        self.discard()
        return 0, None, ""

    def _require_success(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status == 416:  # the file has become shorter than what is there
            self.discard()
            raise _BrokenError("the file on the server has changed")
        said = f"the server says {status} {response.reason}".rstrip()
        if status not in _PASSING_STATUS and status < 500:
            raise self.failure(said)
        pause = _retry_after(response.headers)
        if pause > self._patience.longest_wait:
            raise self.failure(f"{said} and asks to come back in {pause:.0f} s. Run again then")
        raise _BrokenError(said, pause)

    def _receive(self, response: requests.Response, received: int, size: int | None, validator: str) -> None:
        """Write what the server sends behind the bytes that are there, or in their place."""
        if response.status_code == 206:
            start, total = _content_range(response.headers)
            now = _validator(response.headers)
            if start != received or _differ(size, total) or _differ(validator, now):
                self.discard()
                raise _BrokenError("the file on the server has changed, or is not served in parts. Starting over")
            size = size or total
        else:
            received, size, validator = 0, _content_length(response.headers), _validator(response.headers)
            write_json(self._notes, {"url": self._url, "size": size, "validator": validator})
        self._bar.reset(size)
        self._bar.n = self._bar.initial = received
        with self.part.open("r+b" if received else "wb") as stream:
            stream.seek(received)
            # Whatever has come, as it comes: waiting for full chunks would lose the last one of a broken connection.
            while chunk := response.raw.read1(_CHUNK, decode_content=False):
                stream.write(chunk)
                received += len(chunk)
                self._most_received = max(self._most_received, received)
                self._bar.update(len(chunk))
        if size is not None and received != size:
            raise _BrokenError(f"{received} of {size} bytes came")


def _differ(remembered: object, said: object) -> bool:
    """Whether two statements contradict each other; one that was not made does not."""
    return bool(remembered) and bool(said) and remembered != said


def _content_range(headers: CaseInsensitiveDict[str]) -> tuple[int, int | None]:
    """Return the first byte that a part begins with and the size of the whole file; -1 where there is none."""
    span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    start = span.partition("-")[0]
    return int(start) if start.isdigit() else -1, int(total) if total.isdigit() else None


def _content_length(headers: CaseInsensitiveDict[str]) -> int | None:
    length = headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _validator(headers: CaseInsensitiveDict[str]) -> str:
    """Return what tells versions of the file apart: a strong ETag, or else the date; empty where there is neither."""
    tag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def _retry_after(headers: CaseInsensitiveDict[str]) -> float:
    try:
        return max(0.0, Retry().parse_retry_after(headers.get("Retry-After", "0")))
    except InvalidHeader:
        return 0.0


def _root(fault: BaseException) -> str:
    """Return the innermost reason of an error that requests and urllib3 have wrapped."""
    while inner := next((part for part in fault.args if isinstance(part, BaseException)), None):
        fault = getattr(inner, "reason", None) or inner
    return str(fault.args[0] if len(fault.args) == 1 else fault)


def _say(message: str) -> None:
    tqdm.write(message, file=sys.stderr)
