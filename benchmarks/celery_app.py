"""Celery as a contender."""

import django
from django.conf import settings
from tenant_schemas_celery.app import CeleryApp

from benchmarks import jobs

django.setup()
app = CeleryApp("benchmarks")
app.config_from_object("django.conf:settings", namespace="CELERY")
if settings.DATABASES["default"]["CONN_MAX_AGE"]:
    # Else it closes the connection after each task, whatever Django's setting says.
    app.conf.update(CELERY_DB_REUSE_MAX=10_000)
TASKS = {job.__name__: app.task(job, name=job.__name__) for job in (jobs.nothing, jobs.one_ms)}
