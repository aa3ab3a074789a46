from django.apps import AppConfig

from pld_app import logs


class PldAppConfig(AppConfig):
    name = "pld_app"
    verbose_name = "Platform"

    def ready(self) -> None:
        logs.configure()
