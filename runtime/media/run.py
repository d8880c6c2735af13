"""A run over a plan: files in one stream through the pipeline, each tar into a tar of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import groupby

from runtime.errors import EdgeError
from runtime.media.jobs import FaceResult, Job, failure
from runtime.media.origin import origin_of, refuse_taken
from runtime.media.outputs import FileOutput, writing_tar
from runtime.media.pipeline import Pipeline
from runtime.media.plan import Plan


def results(plan: Plan, pipeline: Pipeline, done_since: float | None) -> Iterator[FaceResult]:
    """What became of each input of a plan, in order; a tar has a result for each of its images.

    With `done_since`, in seconds, what was done since is skipped; without, it is made again.
    """
    if plan.tar and done_since is not None:
        refuse_taken(plan.tar, origin_of(plan.tar))
    into = writing_tar(plan.tar, origin_of(plan.tar)) if plan.tar else nullcontext()
    with into as tar:
        for is_tar, jobs in groupby(plan.jobs(tar), lambda job: job.is_tar):
            if not is_tar:
                made = pipeline.run(jobs, None if tar else done_since)
            elif tar:
                made = (each for job in jobs for each in pipeline.run(plan.tar_jobs(job, tar)))
            else:
                made = (
                    each for job in jobs for each in _tar_results(job, plan, pipeline, done_since)
                )
            for result in made:
                if tar:
                    tar.failed += result.error is not None
                yield result


def _tar_results(
    job: Job, plan: Plan, pipeline: Pipeline, done_since: float | None
) -> Iterator[FaceResult]:
    """Of the images in a tar, written into a tar of its own when all of them are done."""
    assert isinstance(job.output, FileOutput)
    if done_since is not None and job.is_done(done_since):
        yield FaceResult(job.name, job.output.name, kind="tar", skipped=True)
        return
    try:
        job.output.claim(job.origin, done_since is None, time.time())
    except EdgeError as error:
        yield failure(job, str(error), "tar")
        return
    with writing_tar(job.output.path, job.origin) as tar:
        for result in pipeline.run(plan.tar_jobs(job, tar)):
            tar.failed += result.error is not None
            yield result
