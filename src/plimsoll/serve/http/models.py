"""The models that are served, and what a bundle proves: the report that `ship` put into it, as a page and as JSON."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from plimsoll.core.budget import Check
from plimsoll.errors import PlimsollError
from plimsoll.report.figures import check_in_words
from plimsoll.report.report import HEADLINE, Measurement, Report
from plimsoll.serve.http.endpoints import (
    TEXT,
    Description,
    Endpoint,
    Endpoints,
    ErrorResponse,
    context_of,
    errors,
    ok,
    parameter,
)
from plimsoll.serve.messages import Problem, ReplyModel, RequestError
from plimsoll.serve.service import ServedModel, Service, State
from plimsoll.system import files

_REPORT = ("report", "report.json")
_REPORT_PAGE = ("report", "index.html")
_MAX_PAGE_BYTES = 64_000_000


class ModelInfo(BaseModel):
    """A model; what it is is known once it has been loaded."""

    model_config = ConfigDict(extra="allow", title="Model")

    name: str
    version: str
    state: State
    reason: str


class ModelList(ReplyModel):
    """The models that are served."""

    models: list[ModelInfo]


class CheckRow(ReplyModel):
    """A check as the page shows it, in words: the same as on the report's page and in the terminal."""

    name: str
    measured: str
    bound: str = Field(description="The 95 % bound, which is judged; a dash where the measured figure is.")
    limit: str
    result: str
    passed: bool
    detail: str


class Proof(ReplyModel):
    """What a report says in short: its checks and figures, without the rows behind them."""

    kind: str = Field(description="The verb that measured: prove, ship …")
    subject: str
    created: AwareDatetime
    plimsoll: str = Field(description="The version that measured.")
    headline: str = Field(description="What was found, in a line; empty where the report has none.")
    checks: tuple[Check, ...]
    rows: tuple[CheckRow, ...] = Field(description="The checks in words.")
    measurements: dict[str, Measurement]
    passed: bool
    page: bool = Field(description="Whether the report is there as a page, too, and this caller may read it.")


_NO_REPORT = {
    404: "There is no such model, or it has no report.",
    500: "The report is not one that this version reads.",
    503: "The report can't be read now.",
}


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoints."""
    api = Endpoints("native")
    name = [parameter("name", "path", {"type": "string", "enum": sorted(service.models)}, "The model's name.")]
    no_report = errors(ErrorResponse, _NO_REPORT)

    @api.get(
        "/v1/models",
        Description("models", "The models that are served.", [ok(ModelList, "The models.")]),
        right="predict",
    )
    async def models(_: Request) -> ModelList:
        await service.refresh()
        return ModelList(models=[_info(model) for model in service.models.values()])

    proof_answers = [ok(Proof, "The checks and figures."), *no_report]

    @api.get(
        "/v1/models/{name}/proof",
        Description("proof", "What the report in a model's bundle says, in short.", proof_answers, parameters=name),
        right="predict",
    )
    async def proof(request: Request) -> Proof:
        path = _in_bundle(service, request.path_params["name"], _REPORT)
        context = context_of(request)
        return await asyncio.to_thread(proof_in_short, path, whole=bool(context.key) or context.caller().local)

    page_answers = [ok(TEXT, "The page, in a sandbox of its own.", "text/html"), *no_report]

    @api.get(
        "/v1/models/{name}/report",
        Description("report", "The report in a model's bundle, as a page.", page_answers, parameters=name),
        right="report",
    )
    async def report(request: Request) -> Response:
        path = _in_bundle(service, request.path_params["name"], _REPORT_PAGE)
        policy = {"Content-Security-Policy": report_policy()}
        return Response(await asyncio.to_thread(_read, path), media_type="text/html", headers=policy)

    return api.rows


def report_policy() -> str:
    """Return the policy for a report from a bundle, whose author is not trusted.

    It has an origin of its own, so that it can neither ask this service with a visitor's rights nor read what it
    answers; of scripts it may run the one that this version's reports have.
    """
    script = resources.files("plimsoll.report.page").joinpath("page.js").read_bytes()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src"
        f" 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _info(model: ServedModel) -> ModelInfo:
    metadata = model.metadata
    known: dict[str, Any] = {}
    if metadata is not None:
        known = {
            "task": metadata.task,
            "labels": metadata.labels,
            "positive": metadata.positive,
            "threshold": metadata.threshold,
            "bands": metadata.bands,
            "target": metadata.target,
            "preprocessing": metadata.preprocessing,
            "report": metadata.bundle is not None and Path(metadata.bundle, *_REPORT).is_file(),
            "origin": metadata.origin,
        }
    if model.candidate is not None:
        known["candidate"] = {**dict(model.candidate.settings), **dict(model.candidate.comparison)}
    return ModelInfo(name=model.name, version=model.version, state=model.state, reason=model.reason, **known)


def _in_bundle(service: Service, name: str, parts: tuple[str, ...]) -> Path:
    """Return the path of a file in a model's bundle; raises RequestError (404) if it does not exist."""
    metadata = service.find(name).metadata
    if metadata is None or metadata.bundle is None:
        raise _no_report(f"{name} does not come from a bundle, so it has no report", "`plimsoll ship` makes one.")
    path = Path(metadata.bundle)
    for part in parts:
        path = path / part
        if path.is_symlink():
            break
    if path.is_symlink() or not path.is_file():
        hint = "`plimsoll ship` puts one into the bundles that it makes."
        raise _no_report(f"the bundle of {name} has no report", hint)
    return path


def _no_report(message: str, hint: str) -> RequestError:
    return RequestError(Problem("input", message, hint, 404))


def _read(path: Path) -> bytes:
    try:
        return files.read_bytes(path, _MAX_PAGE_BYTES)
    except OSError as error:
        status = 500 if error.errno == errno.EFBIG else 503
        hint = "" if status == 500 else "Was the model loaded anew just now? Try again."
        message = f"the report can't be read: {error.strerror}"
        raise RequestError(Problem("failed", message, hint, status)) from error


def proof_in_short(path: Path, *, whole: bool) -> Proof:
    """Return what a report says in short. `whole`: whether the caller may read all of it; the checks' details may name
    pictures. Raises RequestError (500) for a report that can't be read."""
    try:
        report = Report.read(path)
    except PlimsollError as error:
        message = "the bundle's report is not one that this version reads"
        raise RequestError(Problem("failed", message, status=500)) from error
    checks = report.checks if whole else tuple(check.model_copy(update={"detail": ""}) for check in report.checks)
    return Proof(
        kind=report.kind,
        subject=report.subject,
        created=report.created,
        plimsoll=report.plimsoll,
        headline=str(report.measurements.get(HEADLINE, "")),
        checks=checks,
        rows=tuple(_check_row(check) for check in checks),
        measurements=report.measurements,
        passed=report.passed,
        page=whole and path.with_name(_REPORT_PAGE[1]).is_file(),
    )


def _check_row(check: Check) -> CheckRow:
    words = check_in_words(check)
    return CheckRow(
        name=words.name,
        measured=words.measured,
        bound=words.bound,
        limit=words.limit,
        result=words.result,
        passed=check.passed,
        detail=check.detail,
    )
