"""Jobs as they are written for the processes that run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from helpers.small_models import small_model
from plimsoll.errors import InputError
from plimsoll.report.trial import Candidate
from plimsoll.ship import REFERENCE
from plimsoll.ship.build import Artifacts
from plimsoll.ship.job_runner import JobRequest, run
from plimsoll.ship.jobs import AnswerJob, FinalBenchmarkJob, JobContext, TryJob
from plimsoll.ship.preparation import CalibrateJob, LintJob, RankLayersJob, WriteTensorsJob

INT8 = Candidate("fast", True, REFERENCE.target, "minmax", 3)
JOBS = [
    AnswerJob(candidate=INT8, pictures=("a.jpg",)),
    TryJob(candidate=INT8, pictures=(), seconds=0.5),
    FinalBenchmarkJob(candidates=(REFERENCE, INT8), pictures=("a.jpg", "b.jpg"), seconds=2.0),
    CalibrateJob(calibrators=("minmax", "mse"), pictures=()),
    LintJob(table=None, float16=True),
    RankLayersJob(table=Path("table.json"), pictures=()),
    WriteTensorsJob(folded=True, pictures=()),
]


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    artifacts = Artifacts(
        tables={"minmax": tmp_path / "minmax.json"},
        rankings={"minmax": ("conv2", "conv1")},
        tensors={False: tmp_path / "plain.npy", True: tmp_path / "folded.npy"},
    )
    return JobContext.of(small_model(tmp_path), tmp_path / "built", artifacts, "latency")


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.kind)
def test_a_job_is_the_same_in_its_process(context: JobContext, job: TryJob) -> None:
    request = JobRequest(context=context, job=job)
    read = JobRequest.model_validate(json.loads(json.dumps(request.model_dump(mode="json"))))
    assert read == request
    assert type(read.job) is type(job)


def test_a_job_that_does_not_exist_is_refused(context: JobContext) -> None:
    payload = JobRequest(context=context, job=JOBS[0]).model_dump(mode="json")
    for wrong in ({"kind": "guess"}, {"seconds": 3.0}, {"candidate": None}):
        with pytest.raises(ValidationError):
            JobRequest.model_validate(payload | {"job": payload["job"] | wrong})


def test_a_job_returns_plain_data_and_says_why_it_cannot_be_done(context: JobContext) -> None:
    assert run(JobRequest(context=context, job=LintJob(table=None, float16=False)).model_dump(mode="json")) == {
        "findings": []
    }
    with pytest.raises(InputError, match="none of the calibration pictures can be read"):
        run(JobRequest(context=context, job=WriteTensorsJob(folded=False, pictures=())).model_dump(mode="json"))
