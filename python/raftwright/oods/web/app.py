"""The application: paths, parameters, answers, and who may ask."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from raftwright._version import __version__
from raftwright.errors import (
    FormatError,
    MissingExtraError,
    NotFoundError,
    RaftwrightError,
    StorageError,
    UsageError,
)
from raftwright.oods.web.catalogue import Catalogue, described, header_of, path_of
from raftwright.oods.web.files import FitsFile

try:
    from fastapi import Depends, FastAPI, Path, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse
    from fastapi.routing import APIRoute
    from pydantic import BaseModel, Field
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise MissingExtraError(
        "the OODS over HTTP needs FastAPI; install it with `pip install 'raftwright[web]'`"
    ) from error

if TYPE_CHECKING:
    from raftwright.oods.web.previews import Previews
    from raftwright.oods.web.settings import Web

__all__ = ["make_app"]

_OBSID: Final = r"^[A-Z]{2}_[A-Z]_[0-9]{8}_[0-9]{6}$"
_DETECTOR: Final = r"^R[0-4][0-4]_S[0-2GW][0-2]$"
_PNG: Final = {200: {"content": {"image/png": {}}, "description": "A picture"}}
_FITS: Final = {
    200: {"content": {"application/fits": {}}, "description": "The file"},
    206: {"content": {"application/fits": {}}, "description": "A part of it"},
    416: {"description": "It has no such part"},
}

_NAMES: Final = {
    "obsid": "an image; write it as MC_O_20261122_000123",
    "detector": "a detector; write it as R22_S11",
}
_SAID: Final = {
    404: "there is no such path; /openapi.json has them all",
    405: "here one only reads: GET and HEAD",
}

Obsid = Annotated[str, Path(pattern=_OBSID, description="Name of an image: MC_O_20261122_000123")]
Detector = Annotated[str, Path(pattern=_DETECTOR, description="Raft and sensor: R22_S11, R00_SG0, R04_SW1")]
Kind = Annotated[Literal["raw", "guider"], Query(description="Which file of the detector")]
Side = Annotated[int, Query(ge=64, le=4096, description="Pixels that the CCDs are at most wide and high")]


class Problem(BaseModel):
    """Why there is no answer."""

    error: bool = True
    message: str


class Image(BaseModel):
    """An image."""

    number: int = Field(description="Grows with each image; for `before`")
    obsid: str
    instrument: str
    dayobs: int
    seqnum: int
    exposure: int
    state: str
    group: str | None
    cur_index: int | None
    image_type: str | None
    physical_filter: str | None
    exposure_time: float | None
    expected: int = Field(description="Detectors that it must have")
    ingested: int = Field(description="Files that were ingested, guiders and older versions too")


class File(BaseModel):
    """A file of an image."""

    obsid: str
    detector: str
    kind: str
    bytes: int
    crc32c: str
    uri: str
    dataset_id: str
    dataset_type: str
    run: str
    ingested_tai: float | None


class Page(BaseModel):
    """Some images, the newest first."""

    images: list[Image]
    before: int | None = Field(description="For the next page; null: there are no more")


class Presence(BaseModel):
    """Whether a file is there, and where."""

    error: bool = False
    present: bool
    uri: str | None = None


def make_app(catalogue: Catalogue, previews: Previews, web: Web) -> FastAPI:
    """The application for a ledger's repository."""
    problems: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": what}
        for code, what in (
            (400, "What was asked makes no sense"),
            (404, "It is not there"),
            (500, "It cannot be read"),
            (503, "Come again in a moment"),
        )
    }
    if web.tokens:
        problems[401] = {"model": Problem, "description": "Show a token"}
    app = FastAPI(
        title="raftwright OODS",
        version=__version__,
        description="Images of the last weeks, for reading alone.",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        responses=problems,
        dependencies=[Depends(_nothing_unknown)],
    )
    _protect(app, web)
    _explain(app)
    _add_pictures(app, catalogue, previews)  # before a detector's name is looked for there
    _add_listing(app, catalogue)
    _add_files(app, catalogue)
    app.openapi()  # is kept; HEAD goes without saying there
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods is not None:
            route.methods.add("HEAD")
    return app


# -- who may ask, and what goes wrong


async def _nothing_unknown(request: Request) -> None:
    """A parameter that is mistyped would be no filter at all."""
    if not request.query_params:
        return
    known = [each.alias for each in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            have = f"there are {', '.join(known)}" if known else "there are none here"
            raise UsageError(f"{name[:64]!a} is no parameter; {have}")
        if len(request.query_params.getlist(name)) > 1:
            raise UsageError(f"{name} is given twice; give it once")


def _protect(app: FastAPI, web: Web) -> None:
    tokens = [token.encode() for token in web.tokens]

    @app.middleware("http")
    async def check(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        if tokens:
            scheme, _, shown = request.headers.get("authorization", "").partition(" ")
            given = shown.strip().encode("utf-8", "surrogateescape")
            known = [hmac.compare_digest(given, token) for token in tokens]
            if scheme.lower() != "bearer" or not any(known):
                answer = _problem(401, "show a token: Authorization: Bearer TOKEN")
                answer.headers["WWW-Authenticate"] = "Bearer"
                return answer
        return await call(request)

    if tokens:
        original = app.openapi

        def with_tokens() -> dict[str, Any]:
            found = original()
            found.setdefault("components", {})["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"}
            }
            found["security"] = [{"token": []}]
            return found

        app.openapi = with_tokens  # type: ignore[method-assign]


def _problem(code: int, message: str) -> JSONResponse:
    return JSONResponse({"error": True, "message": message}, status_code=code)


def _explain(app: FastAPI) -> None:
    """Every trouble is one JSON object with one sentence."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:  # noqa: ARG001
        first = error.errors()[0]
        where = " ".join(str(part) for part in first.get("loc", ())[1:])
        if where in _NAMES:
            return _problem(400, f"{str(first.get('input'))[:100]!a} is no name of {_NAMES[where]}")
        return _problem(400, f"{where[:100]}: {str(first.get('msg', 'is not valid'))[:300]}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:  # noqa: ARG001
        answer = _problem(error.status_code, _SAID.get(error.status_code, str(error.detail)))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RaftwrightError)
    async def trouble(request: Request, error: RaftwrightError) -> Response:  # noqa: ARG001
        from raftwright.oods.web.previews import BusyError

        if isinstance(error, NotFoundError):
            return _problem(404, str(error))
        if isinstance(error, UsageError):
            return _problem(400, str(error))
        if isinstance(error, (BusyError, StorageError)):
            answer = _problem(503, str(error))
            answer.headers["Retry-After"] = "2"
            return answer
        return _problem(500, str(error))

    @app.exception_handler(Exception)  # a fault of ours; the log has it
    async def fault(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return _problem(500, f"a fault of the server: {type(error).__name__}; its log says more")


# -- answers


def _json(content: Any) -> Response:
    """What is ours is as its model says, which the tests see to; to check it anew each time would take most
    of the time of an answer."""
    return Response(msgspec.json.encode(content), media_type="application/json")


def _add_listing(app: FastAPI, catalogue: Catalogue) -> None:
    @app.get("/", summary="What this is")
    def about() -> dict[str, str]:
        return {
            "service": "raftwright OODS",
            "version": __version__,
            "repository": catalogue.repository,
            "paths": "/openapi.json",
        }

    @app.get("/images", summary="Images, the newest first", response_model=Page)
    def images(
        instrument: Annotated[str | None, Query(max_length=64)] = None,
        dayobs: Annotated[int | None, Query(ge=19700101, le=99991231)] = None,
        before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        found = catalogue.images(
            instrument=None if instrument is None else catalogue.instrument(instrument),
            dayobs=dayobs,
            before=before,
            limit=limit,
        )
        more = found[-1]["number"] if len(found) == limit else None
        return _json({"images": found, "before": more})

    @app.get("/images/{obsid}", summary="Files of an image", response_model=list[File])
    def files(obsid: Obsid) -> Response:
        return _json([described(row) for row in catalogue.files(obsid)])

    @app.get("/images/{obsid}/{detector}", summary="A file of an image")
    def file(obsid: Obsid, detector: Detector, kind: Kind = "raw") -> File:
        return File(**described(catalogue.file(obsid, detector, kind)))

    @app.get(
        "/presence/{instrument}/{group}/{snap}/{detector}",
        summary="Whether a file is there, and where",
        response_model=Presence,
        response_model_exclude_none=True,
    )
    def presence(
        instrument: Annotated[str, Path(max_length=64)],
        group: Annotated[str, Path(max_length=200)],
        snap: Annotated[int, Path(ge=0, le=100_000, description="From 0: CURINDEX - 1")],
        detector: Detector,
    ) -> Presence:
        row = catalogue.presence(instrument, group, snap, detector)
        return Presence(present=False) if row is None else Presence(present=True, uri=row.uri)


def _add_files(app: FastAPI, catalogue: Catalogue) -> None:
    @app.get(
        "/images/{obsid}/{detector}/header",
        summary="The header, as the sidecar has it",
        response_model=dict[str, Any],
    )
    def header(obsid: Obsid, detector: Detector, kind: Kind = "raw") -> Response:
        found = dict(header_of(catalogue.file(obsid, detector, kind)))
        try:
            return _json(found)
        except UnicodeEncodeError:
            raise FormatError(f"{obsid} {detector}: the header has text that is no Unicode") from None

    @app.get(
        "/images/{obsid}/{detector}/file",
        summary="The FITS file",
        response_class=FileResponse,
        responses=_FITS,  # type: ignore[arg-type]
    )
    def content(obsid: Obsid, detector: Detector, kind: Kind = "raw") -> FitsFile:
        row = catalogue.file(obsid, detector, kind)
        return FitsFile(path_of(row), row.bytes, row.crc32c)


def _add_pictures(app: FastAPI, catalogue: Catalogue, previews: Previews) -> None:
    @app.get(
        "/images/{obsid}/{detector}/preview.png",
        summary="A picture of a CCD",
        response_class=Response,
        responses=_PNG,  # type: ignore[arg-type]
    )
    def picture(obsid: Obsid, detector: Detector, side: Side = 768) -> Response:
        path = path_of(catalogue.file(obsid, detector))
        return Response(previews.png([path], f"{obsid}   {detector}", side), media_type="image/png")

    @app.get(
        "/images/{obsid}/preview.png",
        summary="A picture of all that is there of an image",
        response_class=Response,
        responses=_PNG,  # type: ignore[arg-type]
    )
    def whole(obsid: Obsid, side: Side = 1024) -> Response:
        newest = {row.detector: row for row in catalogue.files(obsid) if row.kind == "raw"}
        if not newest:
            raise NotFoundError(f"{obsid}: no raw of it is in the repository")
        paths = [path_of(newest[name]) for name in sorted(newest)]
        return Response(previews.png(paths, obsid, side), media_type="image/png")
