"""The product's own settings, with a bare view beside its URLs to compare against."""

import os
import secrets
import tempfile

os.environ.setdefault("PLD_SECRET_KEY", secrets.token_urlsafe(32))
os.environ.setdefault("PLD_HTTPS", "0")
os.environ.setdefault("PLD_ENDPOINT_ALLOW_PRIVATE", "127.0.0.1")
os.environ.setdefault("PLD_MEDIA_ROOT", tempfile.mkdtemp(prefix="pld-bench-media-"))
os.environ.setdefault("PLD_LOG_LEVEL", "WARNING")

from pld_app.settings import *  # noqa: F403

ROOT_URLCONF = "tests.bench.urls"
