"""dramatiq as a contender."""

import django

django.setup()

import dramatiq  # noqa: E402

from benchmarks import jobs  # noqa: E402

TASKS = {job.__name__: dramatiq.actor(job) for job in (jobs.nothing, jobs.one_ms)}
