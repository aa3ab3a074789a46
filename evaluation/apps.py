from django.apps import AppConfig


class EvaluationConfig(AppConfig):
    name = "evaluation"
    verbose_name = "Evaluation"

    def ready(self) -> None:
        from evaluation import runs  # noqa: PLC0415  # models are loaded only now
        from pld_app.jobs import job_handler  # noqa: PLC0415

        job_handler(runs.JOB_KIND, run=runs.evaluation_run_execute, on_dead=runs.evaluation_run_failed)
