"""Settings of every contender's processes; CONTENDER says whose they are.

Every result is kept: else Django-Q2 would delete an old row for each new one, and the rows could not be counted.
"""

import os

from config.settings import *  # noqa: F403
from config.settings import (
    CACHES,
    DATABASES,
    INSTALLED_APPS,
    LOGGING,
    MIDDLEWARE,
    Q_CLUSTER,
    REDIS_URL,
    SHARED_APPS,
    TENANCY,
    TENANT_APPS,
    TENANT_MIDDLEWARE,
)

CONTENDER = os.environ["CONTENDER"]
OURS = ("tenant_q", "tenant_q.workflows")
Q_CLUSTER |= {"save_limit": 0}

if CONTENDER in ("django_q2", "dramatiq"):
    # The same project on one schema, in plain Django. Its pages are ours, for those of the shop ask for tenant_q.
    INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in (TENANCY, "customers", *OURS, "shop")]
    ROOT_URLCONF = "benchmarks.urls"
    MIDDLEWARE = [path for path in MIDDLEWARE if path != TENANT_MIDDLEWARE]
    DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
    DATABASE_ROUTERS = []
    MIGRATION_MODULES = {}
    del CACHES["default"]["KEY_FUNCTION"]

if CONTENDER == "django_q2":
    # It writes three lines a task at INFO, and is not to be punished for that.
    LOGGING["loggers"]["django-q"]["level"] = "WARNING"  # type: ignore[index]

if CONTENDER == "celery":
    TENANT_APPS = [app for app in TENANT_APPS if app not in ("django_q", "shop", *OURS)] + ["django_celery_results"]
    SHARED_APPS = [app for app in SHARED_APPS if app not in OURS]
    INSTALLED_APPS = SHARED_APPS + [app for app in TENANT_APPS if app not in SHARED_APPS]
    ROOT_URLCONF = "benchmarks.urls"
    CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    CELERY_RESULT_BACKEND = "django-db"
    # A tenant's row is remembered for as long as by tenant_q.
    CELERY_TASK_TENANT_CACHE_SECONDS = 30

if CONTENDER == "dramatiq":
    INSTALLED_APPS = [*INSTALLED_APPS, "django_dramatiq"]
    # As its README has it, but for Prometheus.
    DRAMATIQ_BROKER = {
        "BROKER": "dramatiq.brokers.redis.RedisBroker",
        "OPTIONS": {"url": REDIS_URL},
        "MIDDLEWARE": [
            "dramatiq.middleware.AgeLimit",
            "dramatiq.middleware.TimeLimit",
            "dramatiq.middleware.Callbacks",
            "dramatiq.middleware.Retries",
            "django_dramatiq.middleware.AdminMiddleware",
            "django_dramatiq.middleware.DbConnectionsMiddleware",
        ],
    }
