"""A run over a plan: files in one stream through the pipeline, each archive into one of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby

from runtime.errors import EdgeError, FullDiskError
from runtime.media.archives import Archive, writing_archive
from runtime.media.jobs import FaceResult, Job, failure
from runtime.media.origin import origin_of, refuse_taken
from runtime.media.outputs import FileOutput
from runtime.media.pipeline import Pipeline
from runtime.media.plan import Plan


def results(plan: Plan, pipeline: Pipeline, done_since: float | None) -> Iterator[FaceResult]:
    """What became of each input of a plan, in order; an archive has one for each of its images.

    With `done_since`, in seconds, what was done since is skipped; without, it is made again.
    """
    if not plan.archive:
        for is_archive, jobs in groupby(plan.jobs(), lambda job: job.is_archive):
            if not is_archive:
                yield from pipeline.run(jobs, done_since)
                continue
            for job in jobs:
                yield from _archive_results(job, plan, pipeline, done_since)
        return
    origin = origin_of(plan.archive)
    if done_since is not None:
        refuse_taken(plan.archive, origin)
    with writing_archive(plan.archive, origin) as archive:
        yield from _settled(_all_members(plan, archive), pipeline, archive)


def _archive_results(
    job: Job, plan: Plan, pipeline: Pipeline, done_since: float | None
) -> Iterator[FaceResult]:
    """Of the images in an archive, written into one of its own when all of them are done."""
    assert isinstance(job.output, FileOutput)
    assert job.path
    kind = job.path.suffix[1:].lower()
    done = FaceResult(job.name, job.output.name, kind=kind, skipped=True)
    if done_since is not None and job.is_done(done_since):
        yield done
        return
    with ExitStack() as stack:
        try:
            made = writing_archive(job.output.path, job.origin, job.path, plan.image_column)
            archive = stack.enter_context(made)
            job.output.claim(job.origin, done_since is None, time.time())
        except FullDiskError:
            raise
        except EdgeError as error:
            yield failure(job, str(error), kind, error.status)
            return
        if done_since is not None and job.is_done(done_since):  # by another run, just now
            yield done
            return
        yield from _settled(plan.members(job, archive), pipeline, archive)


def _all_members(plan: Plan, archive: Archive) -> Iterator[Job]:
    """All images of a plan, those in archives among them."""
    for job in plan.jobs(archive):
        if job.is_archive:
            yield from plan.members(job, archive)
        else:
            yield job


def _settled(jobs: Iterable[Job], pipeline: Pipeline, archive: Archive) -> Iterator[FaceResult]:
    """The result of each job, counted and kept by the archive that it goes into."""
    pending: deque[Job] = deque()

    def noted() -> Iterator[Job]:
        for job in jobs:
            pending.append(job)
            yield job

    for result in pipeline.run(noted()):
        archive.settle(pending.popleft(), result)
        yield result
