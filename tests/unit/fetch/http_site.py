"""A real HTTP server on this machine that misbehaves as told."""

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """Answers the requests for each path with the answers put there, one after the other; the last one repeats."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.closing = threading.Event()
        self._answers: dict[str, list[Answer]] = defaultdict(lambda: [status(404)])

    def put(self, path: str, *answers: Answer) -> str:
        """Set the answers for a path; return its URL."""
        self._answers[path] = list(answers)
        return self.url + path

    def ranges(self) -> list[str | None]:
        """The Range header of every request so far."""
        return [headers.get("Range") for _, headers in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, dict(handler.headers)))
        answers = self._answers[handler.path]
        (answers.pop(0) if len(answers) > 1 else answers[0])(handler)

    def hang(self) -> Answer:
        """Say nothing until the server is shut down."""

        def answer(_: BaseHTTPRequestHandler) -> None:
            self.closing.wait(60)

        return answer


@contextmanager
def serve() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield site
        finally:
            site.closing.set()
            server.shutdown()
            thread.join()


def content(
    body: bytes,
    *,
    ranges: bool = True,
    drop_after: int | None = None,
    length: int | None = None,
    total: int | None = None,
    start: int | None = None,
    headers: Mapping[str, str] | None = None,
    honours_if_range: bool = True,
) -> Answer:
    """Send `body`, or the part of it that is asked for.

    Args:
        ranges: serve parts.
        drop_after: break the connection after so many bytes.
        length: the Content-Length to claim in place of the true one; -1 for none.
        total: the total size to claim in Content-Range.
        start: the first byte of the part to send, whatever was asked for.
        headers: further ones, such as ETag.
        honours_if_range: send the whole file where the ETag asked for is not that of `headers`.
    """
    headers = headers or {}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        known = handler.headers.get("If-Range")
        changed = honours_if_range and known not in (None, headers.get("ETag"), headers.get("Last-Modified"))
        part = body
        if asked and ranges and not changed:
            first = int(asked[1]) if start is None else start
            if first >= len(body):
                handler.send_response(416)
                handler.end_headers()
                return
            part = body[first:]
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{total or len(body)}")
        else:
            handler.send_response(200)
        if length != -1:
            handler.send_header("Content-Length", str(len(part) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(part[:drop_after])

    return answer


def chunked(*chunks: bytes, whole: bool = True) -> Answer:
    """Send `chunks` without saying how many will come; unless `whole`, break off inside a further one."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", '"chunked"')
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n" if whole else b"ffff\r\nbroken")
        handler.close_connection = True

    return answer


def status(code: int, **headers: str) -> Answer:
    """Answer with an error."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer
