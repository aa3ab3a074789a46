from django.apps import AppConfig


class EvaluationConfig(AppConfig):
    name = "evaluation"
    verbose_name = "Evaluation"

    def ready(self) -> None:
        from evaluation.selectors import gates  # noqa: PLC0415  # models are loaded only now
        from evaluation.selectors.datasets import newest_sha256  # noqa: PLC0415
        from evaluation.selectors.loops import instruction_cases  # noqa: PLC0415
        from evaluation.selectors.sign_off import ruleset_figures  # noqa: PLC0415
        from evaluation.services import (  # noqa: PLC0415
            ablation_execution,
            dataset_check,
            datasets,
            execution,
            judging,
            loops,
            resolution,
        )
        from pld_app.jobs import job_handler  # noqa: PLC0415
        from rules import hooks  # noqa: PLC0415

        hooks.register(
            "evaluation",
            figures=ruleset_figures,
            dataset=newest_sha256,
            cases=instruction_cases,
            verdicts=gates.ruleset_verdicts,
            offers=gates.datasets_for_gates,
            changes=gates.changes_since,
        )

        job_handler(execution.JOB_KIND, run=execution.evaluation_run_execute, on_dead=execution.evaluation_run_failed)
        job_handler(
            ablation_execution.JOB_KIND,
            run=ablation_execution.ablation_execute,
            on_dead=ablation_execution.ablation_failed,
        )
        job_handler(datasets.READ_JOB, run=datasets.dataset_read, on_dead=datasets.dataset_read_failed)
        job_handler(datasets.CHECK_JOB, run=dataset_check.dataset_check, on_dead=dataset_check.dataset_check_failed)
        job_handler(judging.JOB_KIND, run=judging.judge_execute, on_dead=judging.judge_failed)
        job_handler(loops.JOB_KIND, run=resolution.loop_execute, on_dead=resolution.loop_failed)
