"""The test project's settings for the clusters of benchmarks, whose schedulers note what they enqueue."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks", "benchmarks.flows"]
