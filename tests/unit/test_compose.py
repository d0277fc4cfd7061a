"""`test-compose.yml` fits the test project's settings and Dockerfile. No Docker is needed, so nothing is started."""

from __future__ import annotations

import runpy
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE = yaml.safe_load((ROOT / "test-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("qcluster", "backend")
# What the settings read, and so what must not leak in from this machine's environment.
VARIABLES = (
    "DATABASE_URL",
    "REDIS_URL",
    "CACHE_URL",
    "TENANCY",
    "Q_NAME",
    "Q_WORKERS",
    "CONN_MAX_AGE",
    "DEBUG",
    "SECRET_KEY",
)


def environment(service: str) -> dict[str, str]:
    """A service's environment, with `${NAME:-default}` as Docker fills it in where NAME is not set."""
    given = SERVICES[service].get("environment", {})
    return {name: value.partition(":-")[2].rstrip("}") if "${" in value else value for name, value in given.items()}


def settings_with(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> dict[str, Any]:
    """The test project's settings as a process with this environment reads them."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(ROOT / "testproject/config/settings.py"))


def published_port(service: str) -> int:
    """The port of a service that is published on this machine's loopback, and nowhere else."""
    (mapping,) = SERVICES[service]["ports"]
    address, outside, inside = mapping.split(":")
    assert (address, outside) == ("127.0.0.1", inside)
    return int(outside)


def test_the_services_are_there():
    assert set(SERVICES) == {"postgres", "redis", *OURS}


@pytest.mark.parametrize("service", OURS)
def test_a_service_sets_only_what_the_settings_read(service):
    assert set(environment(service)) <= set(VARIABLES)


@pytest.mark.parametrize("service", OURS)
def test_a_service_finds_the_database_and_the_broker(service, monkeypatch):
    found = settings_with(monkeypatch, environment(service))
    database = found["DATABASES"]["default"]
    assert (database["HOST"], database["PORT"]) == ("postgres", 5432)
    made = environment("postgres")
    assert (database["USER"], database["PASSWORD"], database["NAME"]) == (
        made["POSTGRES_USER"],
        made["POSTGRES_PASSWORD"],
        made["POSTGRES_DB"],
    )
    assert urlsplit(found["Q_CLUSTER"]["redis"])[:3] == ("redis", "redis:6379", "/0")
    assert urlsplit(found["CACHES"]["default"]["LOCATION"])[:3] == ("redis", "redis:6379", "/1"), "not the queue's"


def test_both_services_have_the_same_settings(monkeypatch):
    assert environment("qcluster") == environment("backend")


def test_the_defaults_are_those_of_the_settings(monkeypatch):
    """So that a process on this machine, with nothing set, works with the composed servers."""
    composed = settings_with(monkeypatch, environment("backend"))
    default = settings_with(monkeypatch, {})
    assert composed["TENANCY"] == default["TENANCY"]
    assert composed["Q_CLUSTER"] | {"redis": None} == default["Q_CLUSTER"] | {"redis": None}
    ours, theirs = default["DATABASES"]["default"], composed["DATABASES"]["default"]
    assert (ours["HOST"], ours["PORT"]) == ("localhost", published_port("postgres"))
    assert {**ours, "HOST": None} == {**theirs, "HOST": None}
    assert urlsplit(default["REDIS_URL"]).port == published_port("redis")
    assert urlsplit(default["REDIS_URL"]).path == urlsplit(composed["REDIS_URL"]).path


@pytest.mark.parametrize("tenancy", ["tenant_schemas", "django_tenants"])
def test_the_tenancy_package_can_be_chosen(tenancy, monkeypatch):
    for service in OURS:
        assert SERVICES[service]["environment"]["TENANCY"].startswith("${TENANCY:-")
        found = settings_with(monkeypatch, environment(service) | {"TENANCY": tenancy})
        assert found["DATABASES"]["default"]["ENGINE"] == f"{tenancy}.postgresql_backend"


def test_every_service_waits_for_healthy_ones():
    for service in SERVICES.values():
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        for name, how in service.get("depends_on", {}).items():
            assert SERVICES[name]["healthcheck"]
            assert how == {"condition": "service_healthy"}


def test_the_cluster_is_stopped_in_order(monkeypatch):
    found = settings_with(monkeypatch, environment("qcluster"))
    stop = SERVICES["qcluster"]["stop_grace_period"]
    assert stop.endswith("s")
    assert int(stop[:-1]) > found["TENANT_Q"].get("grace", 30)
    assert SERVICES["qcluster"]["command"] == "python manage.py mscluster", "no shell, which would swallow the signal"


def test_the_broker_keeps_what_it_holds():
    words = shlex.split(SERVICES["redis"]["command"])
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options == {"--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction"}


def test_data_is_on_volumes():
    for service in ("postgres", "redis"):
        (volume,) = SERVICES[service]["volumes"]
        assert volume.split(":")[0] in COMPOSE["volumes"]


def test_the_image_can_be_built_of_what_is_there():
    ignored = (ROOT / "testproject/Dockerfile.dockerignore").read_text().split()
    for service in OURS:
        build = SERVICES[service]["build"]
        assert build["context"] == "."
        copied = [
            source
            for line in (ROOT / build["dockerfile"]).read_text().splitlines()
            if line.startswith("COPY ")
            for source in line.split()[1:-1]
        ]
        assert copied
        for source in copied:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f"{source} is not in the build's context"


def test_every_variable_of_the_settings_is_known_here():
    text = (ROOT / "testproject/config/settings.py").read_text()
    assert {name for name in VARIABLES if f'os.environ.get("{name}"' in text} == set(VARIABLES)
    assert text.count("os.environ.get(") == len(VARIABLES)
