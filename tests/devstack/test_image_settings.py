"""The settings of the container image: pages find the static files that the image's build collects."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pld_app.devstack.paths import ROOT

# Fetches the sign-in page as a browser behind the proxy would; prints the status and the style sheets' addresses.
FETCH = """
import django
django.setup()
from django.test import Client
response = Client().get("/sign-in/", secure=True, headers={"host": "review.example.org"})
print(response.status_code, *[part.split('"')[0] for part in response.text.split('href="')[1:] if ".css" in part])
response = Client().get("/sign-in/", secure=True, headers={"host": "elsewhere.example.org"})
print(response.status_code)
"""


@pytest.mark.slow
def test_pages_link_to_collected_files_named_by_their_content(tmp_path: Path) -> None:
    collected = tmp_path / "staticfiles"
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "pld_app.settings",
        "PLD_SECRET_KEY": "only-for-this-test",
        "PLD_STATIC_ROOT": str(collected),
        "PLD_DEBUG": "0",
        "PLD_HTTPS": "1",
        "PLD_ALLOWED_HOSTS": "review.example.org",
    }
    collect = [sys.executable, "manage.py", "collectstatic", "--noinput"]
    subprocess.run(collect, cwd=ROOT, env=environment, check=True, capture_output=True)
    fetched = subprocess.run(
        [sys.executable, "-c", FETCH], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    page, refused = fetched.stdout.strip().splitlines()
    status, *sheets = page.split()
    assert (status, refused) == ("200", "400"), fetched.stderr
    assert sheets
    for sheet in sheets:
        assert re.search(r"\.[0-9a-f]{12}\.css$", sheet)
        assert (collected / sheet.removeprefix("/static/")).is_file()
