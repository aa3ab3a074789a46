"""Settings of the test run: the product's own, with throwaway secrets and fast password hashing."""

import os
import tempfile

os.environ.setdefault("PLD_SECRET_KEY", "only-for-tests")
os.environ.setdefault("PLD_HTTPS", "0")
os.environ.setdefault("DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:6379/15")
os.environ.setdefault("PLD_ENDPOINT_ALLOW_PRIVATE", "127.0.0.1,localhost")
# A test in one transaction hides its rows from the heartbeat, which must then not be due.
os.environ.setdefault("PLD_JOB_LEASE_S", "3600")
os.environ.setdefault("PLD_MEDIA_ROOT", tempfile.mkdtemp(prefix="pld-test-media-"))

# Each process of a parallel run has a broker of its own: a worker started by one must not take another's hints.
if (process := os.environ.get("PYTEST_XDIST_WORKER", "")) and "PLD_TEST_BROKER" not in os.environ:
    base, _, number = os.environ["REDIS_URL"].rpartition("/")
    os.environ["REDIS_URL"] = os.environ["PLD_TEST_BROKER"] = f"{base}/{(int(number) + 1 + int(process[2:])) % 16}"

os.environ.setdefault("PLD_FACTOR_KEYS", "c2VjcmV0LW9ubHktZm9yLXRoZS10ZXN0cy0hISEhISE=")

from pld_app.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
