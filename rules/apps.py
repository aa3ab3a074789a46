from django.apps import AppConfig


class RulesConfig(AppConfig):
    name = "rules"
    verbose_name = "Rules"

    def ready(self) -> None:
        from pld_app.jobs import job_handler  # noqa: PLC0415  # models are loaded only now
        from rules.services import imports, mining, mining_parts  # noqa: PLC0415

        job_handler(imports.JOB_KIND, run=imports.import_execute, on_dead=imports.import_failed)
        job_handler(mining.JOB_KIND, run=mining.mining_run_execute, on_dead=mining.mining_run_failed)
        parts = mining_parts
        job_handler(parts.JOB_KIND, run=parts.mining_part_execute, on_dead=parts.mining_part_failed)
