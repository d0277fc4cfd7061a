"""The tests' settings for clusters of a site whose public schema has tasks too."""

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, SHARED_APPS

SHARED_APPS = [*SHARED_APPS, "django_q"]
if name := os.environ.get("TEST_REPLICA"):
    DATABASES["replica"] = DATABASES["replica"] | {"NAME": name}
DATABASES["default"] |= json.loads(os.environ.get("TEST_DEFAULT", "{}"))
