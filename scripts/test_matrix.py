"""`make test-all`: the tests with every Python found, each Django and each tenancy package.

Each pair of Python and Django has a virtual environment of its own under .venvs/, where the logs are too. A Python that
is not found, or does not run, is named in the summary as skipped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venvs"
PYTHONS = ["3.11", "3.12", "3.13"]
# Django, and the oldest Python it runs on.
DJANGOS = {"5.2": (3, 10), "6.1": (3, 12)}
TENANCIES = ["tenant_schemas", "django_tenants"]
PROBE = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


@dataclass
class Outcome:
    name: str
    result: str
    detail: str


def interpreters(version: str) -> Iterator[Path]:
    """Where a Python of this version may be: on PATH, and among pyenv's."""
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        yield Path(directory) / f"python{version}"
    yield from sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), reverse=True)


def find_python(version: str) -> tuple[Path | None, str]:
    """The first interpreter that really runs and can make a virtual environment, or None and why."""
    reason = "not found on PATH, nor among pyenv's versions"
    for path in interpreters(version):
        if not path.is_file():
            continue
        try:
            done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = f"{path} does not run: {error}"
            continue
        if done.returncode == 0 and done.stdout.strip() == version:
            return path, ""
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = f"{path} does not run: {said[-1] if said else f'exit code {done.returncode}'}"
    return None, reason


def install(python: Path, django: str, name: str) -> Path:
    """Make the virtual environment, or bring it up to date. Returns its Python."""
    place = VENVS / name
    inside = place / "bin" / "python"
    if not inside.exists():
        subprocess.run([python, "-m", "venv", place], check=True)
    wanted = [".[tenants,embedded,dev]", f"django=={django}.*"]
    subprocess.run(
        [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", *wanted],
        check=True,
        cwd=ROOT,
    )
    return inside


def run_tests(python: Path, tenancy: str, name: str, arguments: list[str]) -> Outcome:
    log = VENVS / f"{name}.log"
    began = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            [python, "-m", "pytest", "-n", "3", "--dist", "loadfile", *arguments],  # as in `make test`
            cwd=ROOT,
            env=os.environ | {"TENANCY": tenancy},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
    seconds = time.monotonic() - began
    if done.returncode:
        print("\n".join(lines[-40:]))
        return Outcome(name, "FAILED", f"{lines[-1].strip('= ')} ({seconds:.0f} s; {log.relative_to(ROOT)})")
    return Outcome(name, "passed", f"{lines[-1].strip('= ')} ({seconds:.0f} s)")


def run_pair(version: str, django: str, tenancies: list[str], arguments: list[str]) -> Iterator[Outcome]:
    """The tests of one Python and one Django, with each tenancy package."""
    pair = f"py{version}-django{django}"
    oldest = DJANGOS[django]
    if tuple(map(int, version.split("."))) < oldest:
        yield Outcome(pair, "skipped", f"Django {django} needs Python {'.'.join(map(str, oldest))}")
        return
    python, reason = find_python(version)
    if python is None:
        yield Outcome(pair, "skipped", reason)
        return
    print(f"{pair}: installing", flush=True)
    try:
        inside = install(python, django, pair)
    except subprocess.CalledProcessError as error:
        yield Outcome(pair, "FAILED", f"cannot be installed: exit code {error.returncode} of {error.cmd[0]}; see above")
        return
    for tenancy in tenancies:
        name = f"{pair}-{tenancy}"
        print(f"{name}: running; its log is .venvs/{name}.log", flush=True)
        yield run_tests(inside, tenancy, name, arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", choices=PYTHONS, action="append", help="only this one; may be repeated")
    parser.add_argument("--django", choices=list(DJANGOS), action="append", help="only this one; may be repeated")
    parser.add_argument("--tenancy", choices=TENANCIES, action="append", help="only this one; may be repeated")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    VENVS.mkdir(exist_ok=True)

    outcomes: list[Outcome] = []
    for version in options.python or PYTHONS:
        for django in options.django or list(DJANGOS):
            for outcome in run_pair(version, django, options.tenancy or TENANCIES, options.pytest):
                print(f"{outcome.name}: {outcome.result}: {outcome.detail}", flush=True)
                outcomes.append(outcome)

    print("\nSummary")
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        print(f"  {outcome.result:<7}  {outcome.name:<{width}}  {outcome.detail}")
    count = {result: sum(o.result == result for o in outcomes) for result in ("passed", "FAILED", "skipped")}
    print(", ".join(f"{number} {result.lower()}" for result, number in count.items()))
    if not count["passed"] and not count["FAILED"]:
        print("Error: nothing ran; install Python 3.11, 3.12 or 3.13.", file=sys.stderr)
        return 1
    return 1 if count["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
