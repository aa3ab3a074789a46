"""What the demo stack remembers between starts: its ports and the secrets it made up for itself."""

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pld_app.database.roles import MIGRATOR, WORKING
from pld_app.devstack.ports import choose_port

USUAL_PORTS = {"web": 8000, "postgres": 5433, "valkey": 6380, "student": 8081}


@dataclass
class StackState:
    """Ports by service name, and random secrets. Never written anywhere but to the owner-only state file."""

    ports: dict[str, int] = field(default_factory=dict)
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    database_password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    # One each: who has the web server's environment must not be able to sign in as another role.
    role_passwords: dict[str, str] = field(
        default_factory=lambda: {role: secrets.token_urlsafe(24) for role in (MIGRATOR, *WORKING)}
    )
    valkey_password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    # Encrypts the secrets of authenticator apps: 32 bytes, as Fernet takes them.
    factor_key: str = field(default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())

    def settle_ports(self) -> None:
        """Keep each remembered port while it is free, else take the next free one; call with nothing running."""
        for name, usual in USUAL_PORTS.items():
            others = {port for other, port in self.ports.items() if other != name}
            self.ports[name] = choose_port(self.ports.get(name, usual), avoid=others)


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner can read it (mode 0600), at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        os.fchmod(descriptor, 0o600)
        handle.write(text)
    temporary.replace(path)


def state_load(path: Path) -> StackState:
    """The remembered state, or a new one. Raises ValueError, naming the file, when it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return StackState()
    try:
        return StackState(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run ./dev demo --reset") from error


def state_save(path: Path, state: StackState) -> None:
    write_private(path, json.dumps(asdict(state), indent=2) + "\n")
