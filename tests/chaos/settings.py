"""The tests' settings and an app that wraps the named points. Its app does nothing without `CHAOS_DIR`."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.chaos.apps.ChaosConfig"]
