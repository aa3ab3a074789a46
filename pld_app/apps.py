from django.apps import AppConfig
from django.core.checks import register
from django.db.models.signals import post_migrate

from pld_app import logs


class PldAppConfig(AppConfig):
    name = "pld_app"
    verbose_name = "Platform"

    def ready(self) -> None:
        # Here, not above: they ask for models and connections, which are not ready when this file is read.
        from pld_app import notifications  # noqa: PLC0415
        from pld_app.database.checks import check_session  # noqa: PLC0415
        from pld_app.database.hooks import after_migrate  # noqa: PLC0415
        from pld_app.jobs import job_handler  # noqa: PLC0415

        logs.configure()
        register(check_session, deploy=True)
        # Sent after the tables of all apps have been made, for each app: once is enough.
        post_migrate.connect(after_migrate, sender=self, dispatch_uid="pld_app.database")
        job_handler(notifications.JOB_KIND, run=notifications.mail_send, on_dead=notifications.mail_failed)
