import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def _api_is_mounted(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.publishing.urls"
