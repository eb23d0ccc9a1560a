"""The page as a web application: for the bearer of its token alone, who comes from the page itself."""

import io
import ipaddress
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from csl.data.images import load_pixels, open_image
from csl.errors import InputError, MachineError, printable
from csl.machine.files import parse_json
from csl.review.session import Session

PAGE = Path(__file__).parent / "page"

_SHOWN = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
"""Formats that every browser shows as they are; others are sent as JPEG."""

_LARGEST = 1 << 20  # bytes of a request
_SMALL = 320  # pixels, of a photo in a grid
_LARGE = 2048  # pixels, of a photo that is sent as JPEG

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create_app(session: Session, token: str, title: str, hosts: tuple[str, ...] = ()) -> Starlette:
    """The application; all of its addresses begin with `/TOKEN/`.

    Args:
        session: the questions and answers.
        token: the first part of every address.
        title: of the page.
        hosts: names, beside `localhost` and addresses of the internet protocol, that the page may be called by.
    """
    page = Environment(loader=FileSystemLoader(PAGE), autoescape=True).get_template("review.html")

    def show(request: Request) -> Response:
        return HTMLResponse(page.render(title=title, file=str(session.answers.file)))

    def questions(request: Request) -> Response:
        ask = request.query_params
        found = session.ask(
            _number(ask, "at", 0), _number(ask, "count", 1), ask.get("class"), "open" in ask, "back" in ask
        )
        return JSONResponse({"questions": found, "counts": session.counts(ask.get("class"))})

    def classes(request: Request) -> Response:
        return JSONResponse({"classes": session.classes(request.query_params.get("find", ""))})

    def taking(take: Callable) -> Callable:
        async def endpoint(request: Request) -> Response:
            given, name = await _given(request)
            await run_in_threadpool(take, given)
            return JSONResponse({"counts": await run_in_threadpool(session.counts, name)})

        return endpoint

    def photo(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(session.questions):
            raise HTTPException(404, f"question {number} of {len(session.questions)}")
        path, roots = session.questions.photo(number)
        data, kind = _small(path, roots) if "small" in request.query_params else _whole(path, roots)
        return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=86400"})

    routes = [
        Route("/", show),
        Route("/questions", questions),
        Route("/classes", classes),
        Route("/answer", taking(session.answer), methods=["POST"]),
        Route("/undo", taking(session.undo), methods=["POST"]),
        Route("/photo/{number:int}", photo),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]

    def in_words(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 507 if isinstance(error, MachineError) else 400)
        words = error.detail if isinstance(error, HTTPException) else str(error)
        return PlainTextResponse(printable(words), status)

    app = Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        exception_handlers={HTTPException: in_words, InputError: in_words},
    )
    app.add_middleware(_Guard, token=token, hosts=("localhost", *hosts))
    return app


class _Guard:
    """Lets a request through that has the token and the name of this server, and comes from no page of another.

    A page of somebody else that lets its own name point at this machine (DNS rebinding) sends that name as the host.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: tuple[str, ...]):
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = self._refused(scope["path"], Headers(scope=scope))

        async def with_headers(message):
            if message["type"] == "http.response.start":
                sent = {name for name, _ in message["headers"]}
                message["headers"] += [
                    (name.lower().encode(), text.encode())
                    for name, text in _HEADERS.items()
                    if name.lower().encode() not in sent
                ]
            await send(message)

        await (PlainTextResponse(refused, 403) if refused else self.app)(scope, receive, with_headers)

    def _refused(self, path, headers):
        """Why a request is refused, None where it is not."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return "the host of this address is not this server"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "asked by the page of another server"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "asked by the page of another server"
        if not secrets.compare_digest(path.split("/")[1].encode(), self.token.encode()):
            return "the address lacks the token: open the one that `csl review` prints"
        return None

    def _is_ours(self, host):
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.hosts
        return True  # no name that could point elsewhere


def _number(query, name, default):
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(400, f"{name}: found {text[:80]!r}, expected a whole number")
    return int(text)


async def _given(request):
    """The answers of a request, and the class that counts are asked for."""
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise HTTPException(415, "expected application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST:
            raise HTTPException(413, f"more than {_LARGEST:,} bytes of answers")
    content = parse_json(body, "answers")
    given, name = (content.get("answers"), content.get("class")) if isinstance(content, dict) else (None, None)
    if not isinstance(given, list) or not all(
        isinstance(one, list) and len(one) == 3 and all(isinstance(text, str) for text in one) for one in given
    ):
        raise HTTPException(400, "answers: expected a list of [image, class, answer]")
    return given, name if isinstance(name, str) else None


def _whole(path, roots):
    """The bytes of a photo and their kind: as they are, or as JPEG where browsers do not show them."""
    try:
        with open_image(path, roots) as file:
            data = file.read()
        with Image.open(io.BytesIO(data), formats=list(_SHOWN)) as image:
            return data, _SHOWN[image.format]
    except (
        OSError,
        EOFError,
        ValueError,
        SyntaxError,
    ):  # of another format; what is wrong with a broken one is said below
        return _jpeg(path, roots, _LARGE)


def _small(path, roots):
    return _jpeg(path, roots, _SMALL)


def _jpeg(path, roots, side):
    try:
        image = Image.fromarray(load_pixels(path, roots, at_least=(side, side)))
    except InputError as error:
        raise HTTPException(404, str(error)) from None
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue(), "image/jpeg"
