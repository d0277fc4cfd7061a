"""The testproject's settings, with what a test sets for its subprocesses in the environment as JSON."""

import json
import os

from config.settings import *  # noqa: F403
from config.settings import DATABASES, INSTALLED_APPS, Q_CLUSTER, TENANT_APPS, TENANT_Q

Q_CLUSTER |= json.loads(os.environ.get("TEST_Q_CLUSTER", "{}"))
# What the schedules of the tests' admins run, besides `shop.tasks`.
if not os.environ.get("TEST_VERSION_BEFORE"):  # it does not know this key
    TENANT_Q |= {"admin_functions": ["tests.tasks.*"]}
TENANT_Q |= json.loads(os.environ.get("TEST_TENANT_Q", "{}"))
SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = json.loads(os.environ.get("TEST_EXCLUDED", '["public"]'))
# The plugin has made this run's database; Django's own test database is not used.
DATABASES["default"]["TEST"] = {"NAME": DATABASES["default"]["NAME"]}

# The workflows of the tests. A version before has no such app.
INSTALLED_APPS = [*INSTALLED_APPS, "tests.flows", *json.loads(os.environ.get("TEST_APPS", "[]"))]
if os.environ.get("TEST_VERSION_BEFORE"):
    TENANT_APPS = [app for app in TENANT_APPS if app != "tenant_q.workflows"]
    INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in ("tenant_q.workflows", "tests.flows")]

# And one of another kind.
DATABASES["elsewhere"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}

# Broken on purpose, for the tests of error messages.
if os.environ.get("TEST_NO_SECRET_KEY"):
    SECRET_KEY = ""
if os.environ.get("TEST_WITHOUT"):
    TENANT_APPS = [app for app in TENANT_APPS if app != os.environ["TEST_WITHOUT"]]
# A second alias of the same database, as a replica has one.
DATABASES["replica"] = DATABASES["default"] | {"TEST": {"MIRROR": "default"}}

# Django's Tasks API: its own in Django 6, before that the package `django-tasks`.
TASKS = {
    "default": {"BACKEND": "tenant_q.django_tasks.TenantTaskBackend"},
    "stubborn": {
        "BACKEND": "tenant_q.django_tasks.TenantTaskBackend",
        "OPTIONS": {"max_attempts": 3, "retry_delay": 0, "retry_jitter": 0},
    },
}
