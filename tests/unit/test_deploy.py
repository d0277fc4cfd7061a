"""The files of `docs/how-to/deploy` fit their systems, as far as that is seen without these, and fit the cluster."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tenant_q.conf import conf
from tenant_q.management.commands.mshealth import Command
from tests.documents import DOCS, ROOT

FOLDER = DOCS / "how-to" / "deploy"
UNIT = FOLDER / "tenant-q.service"
MANIFEST = [
    document
    for name in ("kubernetes.yaml", "kubernetes-migrate.yaml")
    for document in yaml.safe_load_all((FOLDER / name).read_text())
]
COMPOSE = FOLDER / "compose.yaml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
MSCLUSTER = ["python", "manage.py", "mscluster"]
HEALTH = ["python", "manage.py", "mshealth"]
# What stopping takes besides the grace itself.
MARGIN = 10
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
VERSIONS = sorted({re.sub(r"^v(\d+\.\d+)\..*", r"\1", path.name) for path in SCHEMAS.glob("v*")})


@pytest.fixture
def grace(settings) -> float:
    settings.TENANT_Q = {}
    return conf().grace + MARGIN


def test_every_file_is_on_the_page():
    page = "".join((FOLDER.parent / f"{name}.md").read_text() for name in ("deploy", "servers", "pgbouncer"))
    for path in FOLDER.iterdir():
        assert f'--8<-- "docs/how-to/deploy/{path.name}"' in page, path.name


# systemd


def unit() -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(UNIT)
    return dict(parser["Service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path):
    """What it does not know it says, and goes on; so nothing may be said."""
    text, count = re.subn(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE)
    assert count == 1
    (tmp_path / UNIT.name).write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)], capture_output=True, text=True, timeout=60
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_the_unit_stops_the_cluster_in_order(grace):
    service = unit()
    assert shlex.split(service["ExecStart"])[1:] == MSCLUSTER[1:]
    assert int(service["TimeoutStopSec"]) >= grace
    assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
    assert service["Restart"] == "on-failure"
    assert service["OOMPolicy"] == "continue", "else one worker's death stops the cluster"


# Kubernetes


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifest_is_valid(version):
    assert len(VERSIONS) > 5
    for document in MANIFEST:
        kubernetes_validate.validate(document, version, strict=True)


def kind(name: str) -> dict[str, Any]:
    (found,) = (document for document in MANIFEST if document["kind"] == name)
    return dict(found["spec"])


def test_the_pods_are_stopped_in_order(grace):
    pod = kind("Deployment")["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:3] == MSCLUSTER
    assert pod["terminationGracePeriodSeconds"] >= grace
    assert pod["shareProcessNamespace"] is True


def test_an_outage_restarts_no_pod():
    (container,) = kind("Deployment")["template"]["spec"]["containers"]
    for probe, options in (("readinessProbe", ["--host"]), ("livenessProbe", ["--host", "--live"])):
        command = container[probe]["exec"]["command"]
        assert command == [*HEALTH, *options]
        assert_mshealth_takes(command)
        assert container[probe]["timeoutSeconds"] >= 5
    # Nor does a moment in which Redis is new and no cluster has told anything yet.
    assert container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"] >= 60


def assert_mshealth_takes(command: list[str]) -> None:
    parser = Command().create_parser("manage.py", "mshealth")
    options = parser.parse_args(command[len(HEALTH) :])
    assert options.host == socket.gethostname(), "this machine's cluster only"


def test_the_clusters_do_not_come_with_the_migration():
    """What is applied together starts together."""
    assert {one["kind"] for one in yaml.safe_load_all((FOLDER / "kubernetes-migrate.yaml").read_text())} == {"Job"}
    page = (FOLDER.parent / "deploy.md").read_text()
    name = next(document for document in MANIFEST if document["kind"] == "Job")["metadata"]["name"]
    steps = ["--filename kubernetes-migrate.yaml", f"job/{name}", "--filename kubernetes.yaml"]
    assert sorted(steps, key=page.index) == steps


def test_the_labels_of_the_manifest_fit():
    deployment = kind("Deployment")
    labels = deployment["template"]["metadata"]["labels"]
    assert labels == deployment["selector"]["matchLabels"] == kind("PodDisruptionBudget")["selector"]["matchLabels"]
    (migrate,) = kind("Job")["template"]["spec"]["containers"]
    (cluster,) = deployment["template"]["spec"]["containers"]
    assert migrate["image"] == cluster["image"]
    assert migrate["envFrom"] == cluster["envFrom"]


# Compose


def assert_valid(file: Path, schema: str) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_compose_file_is_valid():
    assert_valid(COMPOSE, "compose-spec")


def test_compose_stops_the_cluster_in_order(grace):
    service = SERVICES["mscluster"]
    assert service["command"][:3] == MSCLUSTER
    assert float(service["stop_grace_period"].removesuffix("s")) >= grace
    assert service["init"] is True
    command = service["healthcheck"]["test"]
    assert command == ["CMD", *HEALTH, "--host"]
    assert_mshealth_takes(command[1:])


def test_composed_services_wait_for_what_they_need():
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            wanted = "service_healthy" if "healthcheck" in SERVICES[name] else "service_completed_successfully"
            assert how == {"condition": wanted}


def test_the_broker_keeps_what_it_holds():
    words = shlex.split(SERVICES["redis"]["command"])
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options == {"--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction"}


def test_data_is_on_volumes():
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for name in ("postgres", "redis"):
        assert [volume.partition(":")[0] in volumes for volume in SERVICES[name]["volumes"]] == [True]


# PgBouncer


def test_the_pooler_pools_sessions():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(FOLDER / "pgbouncer.ini")
    assert parser["pgbouncer"]["pool_mode"] == "session"
    assert "server_reset_query_always" not in parser["pgbouncer"], "session pooling resets each time"


# Continuous integration


def test_the_workflow_is_valid_and_calls_what_every_change_must_pass():
    assert_valid(WORKFLOW, "github-workflows")
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    assert jobs["check"]["steps"][-1] == {"run": "bash .ci/run"}
    checkouts = [step for job in jobs.values() for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert all(step["with"]["fetch-depth"] == 0 for step in checkouts), "test_versions runs earlier commits"
