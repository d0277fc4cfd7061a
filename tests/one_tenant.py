"""A site of its own that begins with plain Django-Q2 and no tenants, for the tests of how it gets tenants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psycopg

from tests.conftest import MANAGE, RunningCluster, delete_keys
from tests.documents import ROOT

# What the site is before it has a tenancy package.
WITHOUT_TENANTS = """
from config.settings import *

DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
DATABASE_ROUTERS = []
MIDDLEWARE = MIDDLEWARE[1:]
ROOT_URLCONF, urlpatterns = "site_settings", []
CACHES["default"].pop("KEY_FUNCTION")
STORAGES["default"] = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django_q",
    "shop",
]
"""
WITH_TENANTS = """
from config.settings import *

ALLOWED_HOSTS = ["*"]
TENANT_Q["admin_functions"] = ["tests.tasks.*"]

"""


class Site:
    """A site in a database and a folder of its own. Each command is a process, as a reader would type it.

    Parameters: `like`, a site whose database and settings it begins with; nothing may be connected to that.
    """

    def __init__(self, folder: Path, like: Site | None = None) -> None:
        self.name = f"one{uuid.uuid4().hex[:8]}"
        self.folder = folder
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as raw:
            raw.execute(f'CREATE DATABASE "{self.name}"' + (f' TEMPLATE "{like.name}"' if like else ""))
        place, _, query = os.environ["DATABASE_URL"].partition("?")
        url = f"{place.rpartition('/')[0]}/{self.name}" + (f"?{query}" if query else "")
        self.url = url
        self.env = {
            "Q_NAME": self.name,
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), str(ROOT / "testproject")]),
        }
        self.clusters: list[RunningCluster] = []
        if like:
            self.configure((like.folder / "site_settings.py").read_text())

    def configure(self, text: str) -> None:
        (self.folder / "site_settings.py").write_text(text)

    def manage(self, *words: str, input: str | None = None) -> str:
        """Run a command of `manage.py`; return what it prints."""
        done = subprocess.run(
            [sys.executable, str(MANAGE), *words],
            env=os.environ | self.env,
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, code: str) -> str:
        """Run code in the site; return what it prints."""
        run = f"import django; django.setup()\n{code}"
        done = subprocess.run(
            [sys.executable, "-c", run],
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def ask(self, code: str, expression: str) -> Any:
        """Run code in the site; return the value of an expression, over JSON."""
        return json.loads(
            self.python(f"{code}\nimport json; print(json.dumps({expression}, default=str))").splitlines()[-1]
        )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a script of SQL, which may begin and commit transactions; return the rows of its last statement."""
        with psycopg.connect(self.url, autocommit=True) as raw:
            cursor = raw.execute(statement)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def start_cluster(self) -> RunningCluster:
        log = self.folder / f"mscluster-{len(self.clusters)}.log"
        self.clusters.append(RunningCluster("--workers", "2", env=self.env, log=log))
        self.clusters[-1].wait_for_workers(2)
        return self.clusters[-1]

    def end(self) -> None:
        for cluster in self.clusters:
            cluster.end()
        delete_keys(self.name)
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as raw:
            raw.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')
