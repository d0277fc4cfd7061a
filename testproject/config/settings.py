"""Settings of the test project.

Environment variables, all optional; the defaults fit `test-compose.yml`:

    TENANCY        tenant_schemas (default) or django_tenants
    DATABASE_URL   PostgreSQL
    REDIS_URL      Redis or Valkey: the queue
    CACHE_URL      Redis or Valkey for the cache; by default database 1 of the queue's server
    Q_NAME         name of the cluster
    Q_WORKERS      worker processes of `mscluster`
    CONN_MAX_AGE   seconds a web request's database connection is kept
    DEBUG          1 (default) or 0
    SECRET_KEY     signs sessions and task packages
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured


def in_database(url: str, number: int) -> str:
    """Return the URL of another database on the same server."""
    if url.startswith("unix:"):
        return f"{url.partition('?')[0]}?db={number}"
    return urlunsplit(urlsplit(url)._replace(path=f"/{number}"))


BASE_DIR = Path(__file__).resolve().parent.parent

# The tenancy package. Both have the same parts under the same names, but for the middleware and the storage.

TENANCY = os.environ.get("TENANCY", "tenant_schemas")
if TENANCY not in ("tenant_schemas", "django_tenants"):
    raise ImproperlyConfigured(f"TENANCY is {TENANCY!r}; set it to tenant_schemas or django_tenants.")

if TENANCY == "tenant_schemas":
    TENANT_MIDDLEWARE = "tenant_schemas.middleware.TenantMiddleware"
    TENANT_STORAGE = "tenant_schemas.storage.TenantFileSystemStorage"
else:
    TENANT_MIDDLEWARE = "django_tenants.middleware.main.TenantMainMiddleware"
    TENANT_STORAGE = "django_tenants.files.storage.TenantFileSystemStorage"
    TENANT_DOMAIN_MODEL = "customers.Domain"

TENANT_MODEL = "customers.Customer"
# The tenant model differs a little, and so do its tables.
MIGRATION_MODULES = {"customers": f"customers.migrations_{TENANCY}"}
DATABASE_ROUTERS = [f"{TENANCY}.routers.TenantSyncRouter"]

# Apps. Tables of SHARED_APPS are in the schema `public`, those of TENANT_APPS in the schema of each tenant.

SHARED_APPS = [
    TENANCY,
    "customers",
    "tenant_q",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "django.contrib.staticfiles",
]
TENANT_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "django_q",
    "tenant_q.workflows",
    "shop",
]
INSTALLED_APPS = SHARED_APPS + [app for app in TENANT_APPS if app not in SHARED_APPS]

# Services

DATABASE_URL = os.environ.get("DATABASE_URL") or "postgresql://testproject:testproject@localhost:5432/testproject"
REDIS_URL = os.environ.get("REDIS_URL") or "redis://localhost:6379/0"

CACHE_URL = os.environ.get("CACHE_URL") or in_database(REDIS_URL, 1)

DATABASES = {
    "default": dj_database_url.parse(
        DATABASE_URL,
        engine=f"{TENANCY}.postgresql_backend",
        conn_max_age=int(os.environ.get("CONN_MAX_AGE", "0")),
    )
}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        # Not the queue's database: `cache.clear()` empties it.
        "LOCATION": CACHE_URL,
        # Equal keys of two tenants are two entries.
        "KEY_FUNCTION": f"{TENANCY}.cache.make_key",
    }
}

# Tasks

Q_CLUSTER = {
    "name": os.environ.get("Q_NAME", "testproject"),
    "redis": REDIS_URL,
    "workers": int(os.environ.get("Q_WORKERS", "2")),
    "timeout": 60,
    "catch_up": True,
}
TENANT_Q: dict[str, Any] = {}
SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = ["public"]

# Web

DEBUG = os.environ.get("DEBUG", "1") == "1"
# For this demo only: who knows the key can sign tasks.
SECRET_KEY = os.environ.get("SECRET_KEY", "the-demo-key-is-public-so-never-use-it-for-anything-else")
# Chrome, Firefox and curl find every name under .localhost on this machine, without DNS.
ALLOWED_HOSTS = [".localhost"]
ROOT_URLCONF = "config.urls"
PUBLIC_SCHEMA_URLCONF = "config.urls_public"
WSGI_APPLICATION = "config.wsgi.application"
LOGIN_URL = "admin:login"

MIDDLEWARE = [
    # First: it chooses the schema for all that follows.
    TENANT_MIDDLEWARE,
    # Then: no view of a tenant makes a call for another one.
    "tenant_q.middleware.RestrictToTenant",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
MEDIA_URL = "media/"
MEDIA_ROOT = BASE_DIR / "media"
STORAGES = {
    "default": {"BACKEND": TENANT_STORAGE},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# The rest

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"tenant": {"()": "tenant_q.logging.TenantFilter"}},
    "formatters": {"line": {"format": "{asctime} {levelname:<7} [{schema}] {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "filters": ["tenant"], "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"tenant_q": {"level": "INFO"}, "django-q": {"level": "INFO"}},
}
