"""The container stack: complete, without literal secrets, closed to the outside, and naming things that exist."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import yaml

from pld_app.devstack.paths import ROOT
from pld_app.devstack.ports import LOOPBACK, free_port
from pld_app.devstack.postgres import installation, postgres_spec, postgres_url, remove_cluster
from pld_app.devstack.processes import Supervisor

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))  # Any: parsed YAML
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "web", "worker", "beat", "sealer")
LASTING = sorted(set(SERVICES) - {"migrate"})
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}")
SECRET = re.compile(r"SECRET|PASSWORD|KEY(?!_FILE)|TOKEN")
# For what not every installation has: a receiver of copies that asks for one, single sign-on, a mail server.
OPTIONAL = {"PLD_AUDIT_COPY_TOKEN", "PLD_OIDC_CLIENT_SECRET", "PLD_SMTP_PASSWORD"}


def variables() -> list[tuple[str, str, str]]:
    """(name, operator, rest) of each ${...}; the operator is ? (required), - (default) or empty."""
    lines = (ROOT / "docker-compose.yml").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return [(name, operator or "", rest) for name, operator, rest in VARIABLE.findall(text)]


def example() -> dict[str, str]:
    """Variables of .env.example with their values; a commented-out one counts too."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", text, flags=re.MULTILINE))


def environment(service: str) -> dict[str, str]:
    return {name: str(value) for name, value in SERVICES[service].get("environment", {}).items()}


def test_all_parts_are_there() -> None:
    assert set(SERVICES) == {"postgres", "valkey", *OURS}
    assert SERVICES["postgres"]["image"] == "postgres:18"


def test_each_secret_is_required_from_outside_and_has_no_default() -> None:
    found = [(name, op) for name, op, _rest in variables() if SECRET.search(name) and name not in OPTIONAL]
    assert {name for name, _operator in found} == {
        "PLD_SECRET_KEY",
        "PLD_FACTOR_KEYS",
        "PLD_DATABASE_PASSWORD",
        "PLD_MIGRATOR_DATABASE_PASSWORD",
        "PLD_SEALER_DATABASE_PASSWORD",
        "PLD_POSTGRES_PASSWORD",
        "PLD_VALKEY_PASSWORD",
    }
    assert {operator for _name, operator in found} == {"?"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_no_environment_holds_a_literal_secret(service: str) -> None:
    for name, value in environment(service).items():
        if SECRET.search(name):
            assert VARIABLE.fullmatch(value), f"{service}: {name} is written out"
        if "://" in value and "@" in value:
            password = value.split("://", 1)[1].rpartition("@")[0].partition(":")[2]
            assert VARIABLE.fullmatch(password), f"{service}: {name} holds a written-out password"


def test_the_example_explains_every_variable_and_gives_no_secret() -> None:
    given = example()
    assert {name for name, _operator, _rest in variables()} <= set(given)
    assert {name: value for name, value in given.items() if SECRET.search(name)} == dict.fromkeys(
        (name for name in given if SECRET.search(name)), ""
    )
    settings = (ROOT / "pld_app" / "settings.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"((?:PLD_\w+|DATABASE_URL|REDIS_URL))"', settings)) <= set(given)


def test_our_services_get_every_setting_they_need() -> None:
    for service in OURS:
        assert {"DATABASE_URL", "REDIS_URL", "PLD_SECRET_KEY", "PLD_ALLOWED_HOSTS"} <= set(environment(service))
        assert environment(service)["PLD_DEBUG"] == "0"


@pytest.mark.parametrize("service", OURS)
def test_our_services_run_with_few_rights(service: str) -> None:
    definition = SERVICES[service]
    assert definition["read_only"] is True
    assert definition["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in definition["security_opt"]
    assert not definition.get("privileged")


@pytest.mark.parametrize("service", LASTING)
def test_lasting_services_restart_and_are_watched(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert SERVICES[service]["healthcheck"]["test"]


def test_only_the_web_server_is_reachable_and_only_from_this_machine() -> None:
    assert [name for name in SERVICES if SERVICES[name].get("ports")] == ["web"]
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES["web"]["ports"])
    assert COMPOSE["networks"]["data"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == SERVICES["valkey"]["networks"] == ["data"]


def test_nothing_works_before_the_migration_has_ended_well() -> None:
    for service in ("web", "worker", "beat", "sealer"):
        assert SERVICES[service]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["restart"] == "no"


def test_only_the_sealer_has_the_key_and_the_role_that_seals() -> None:
    for service in set(SERVICES) - {"sealer"}:
        assert not {"PLD_AUDIT_KEY_FILE", "PLD_SEALER_DATABASE_URL"} & set(environment(service))
        assert "audit-key:" not in " ".join(map(str, SERVICES[service].get("volumes", [])))
    assert "//pld_sealer:" in environment("sealer")["PLD_SEALER_DATABASE_URL"]
    assert environment("sealer")["PLD_AUDIT_KEY_FILE"].startswith("/srv/audit-key/")


def test_the_broker_keeps_its_log_and_evicts_nothing() -> None:
    command = SERVICES["valkey"]["command"][-1]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_volumes_and_networks_are_declared_and_mounted_files_exist(service: str) -> None:
    assert set(SERVICES[service].get("networks", [])) <= set(COMPOSE["networks"])
    for volume in SERVICES[service].get("volumes", []):
        source = volume.partition(":")[0]
        assert (ROOT / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]


def test_only_the_migration_can_sign_in_as_more_than_the_application() -> None:
    for service in set(OURS) - {"migrate"}:
        values = " ".join(environment(service).values())
        assert "//pld_app:" in values
        assert "MIGRATOR" not in values
        assert "POSTGRES_PASSWORD" not in values
    assert "//pld_migrator:" in environment("migrate")["PLD_MIGRATOR_DATABASE_URL"]
    assert "database_roles check" in SERVICES["migrate"]["command"][-1]


def test_the_database_script_makes_roles_of_which_only_the_owner_can_change_tables(tmp_path: Path) -> None:
    """The container's script on a real server, then migrating and checking as the service `migrate` does."""
    port, superuser = free_port(), "of-the-superuser"
    passwords = {"pld_app": "of-'the'-application", "pld_migrator": "of-the-migrator", "pld_sealer": "of-the-sealer"}
    home = tmp_path / "pg"
    try:
        with Supervisor(logs=tmp_path / "logs") as supervisor:
            supervisor.start_ready(postgres_spec(home=home, port=port, password=superuser, durable=False))
            given = {
                "PATH": f"{installation(home).bin}:{os.defpath}",
                "PGHOST": LOOPBACK,
                "PGPORT": str(port),
                "PGPASSWORD": superuser,
                "POSTGRES_USER": "postgres",
                "PLD_CLUSTER_SQL": str(ROOT / "pld_app" / "database" / "cluster.sql"),
                "PLD_DATABASE_PASSWORD": passwords["pld_app"],
                "PLD_MIGRATOR_DATABASE_PASSWORD": passwords["pld_migrator"],
                "PLD_SEALER_DATABASE_PASSWORD": passwords["pld_sealer"],
            }
            subprocess.run([str(ROOT / "docker" / "postgres-init.sh")], env=given, check=True)
            product = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"} | {
                "DATABASE_URL": postgres_url(port, quote(passwords["pld_app"]), user="pld_app"),
                "PLD_MIGRATOR_DATABASE_URL": postgres_url(port, passwords["pld_migrator"], user="pld_migrator"),
                "PLD_SECRET_KEY": "only-for-this-test",
            }
            command = SERVICES["migrate"]["command"][-1].replace("python", sys.executable)
            done = subprocess.run(
                ["sh", "-c", command], cwd=ROOT, env=product, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "guards and roles are as they should be" in done.stdout
            for role, password in passwords.items():
                with psycopg.connect(
                    host=LOOPBACK, port=port, user=role, password=password, dbname="pld", autocommit=True
                ) as connection:
                    assert connection.execute("SELECT current_setting('is_superuser')").fetchone() == ("off",)
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute("CREATE TABLE public.mine (id int)")
                    if role == "pld_app":
                        connection.execute("SELECT username FROM pld_app_user")
    finally:
        remove_cluster(home)


def dockerfile() -> list[str]:
    """Instructions of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_image_copies_what_exists_and_runs_unprivileged() -> None:
    copies = [line.split()[1:-1] for line in dockerfile() if line.startswith("COPY ") and "--from" not in line]
    sources = [source for copy in copies for source in copy]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{source}" for source in sources} <= set(allowed)
    assert [line for line in dockerfile() if line.startswith("USER ")] == ["USER 10001:10001"]


def test_the_image_holds_no_secret() -> None:
    settings = [line for line in dockerfile() if line.startswith(("ENV ", "ARG "))]
    assert [line for line in settings if re.search(r"SECRET|PASSWORD|TOKEN", line)] == []


@pytest.mark.parametrize("name", ["pld_app.celery", "pld_app.wsgi", "pld_app.devstack.probe"])
def test_modules_named_in_commands_exist(name: str) -> None:
    texts = [Path(ROOT / file).read_text(encoding="utf-8") for file in ("docker-compose.yml", "Dockerfile")]
    assert any(name in text for text in texts)
    assert importlib.util.find_spec(name)
