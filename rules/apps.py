from django.apps import AppConfig


class RulesConfig(AppConfig):
    name = "rules"
    verbose_name = "Rules"

    def ready(self) -> None:
        from pld_app.jobs import job_handler  # noqa: PLC0415  # models are loaded only now
        from pld_app.transparency.rounds import AFTER_SEAL  # noqa: PLC0415
        from rules.object_links import pages_register  # noqa: PLC0415
        from rules.services import (  # noqa: PLC0415
            bundle_requests,
            bundle_signing,
            imports,
            mining,
            mining_batches,
            mining_parts,
            prompt_sizes,
            pruning,
            scheduling,
            stopping,
            webhooks,
        )

        job_handler(imports.JOB_KIND, run=imports.import_execute, on_dead=imports.import_failed)
        job_handler(mining.JOB_KIND, run=mining.mining_run_execute, on_dead=mining.mining_run_failed)
        job_handler(stopping.JOB_KIND, run=stopping.stop_due, on_dead=stopping.stop_due_failed)
        job_handler(scheduling.JOB_KIND, run=scheduling.schedule_run, on_dead=scheduling.schedule_failed)
        job_handler(scheduling.END_JOB_KIND, run=scheduling.schedule_until, on_dead=scheduling.schedule_until_failed)
        job_handler(webhooks.JOB_KIND, run=webhooks.delivery_send, on_dead=webhooks.delivery_failed)
        batches = mining_batches
        job_handler(batches.JOB_KIND, run=batches.mining_batch_execute, on_dead=batches.mining_batch_failed)
        sizes = prompt_sizes
        job_handler(sizes.JOB_KIND, run=sizes.prompt_size_count, on_dead=sizes.prompt_size_failed)
        parts = mining_parts
        job_handler(pruning.JOB_KIND, run=pruning.prune_run, on_dead=pruning.prune_failed)
        pages_register()
        job_handler(parts.JOB_KIND, run=parts.mining_part_execute, on_dead=parts.mining_part_failed)
        bundles = bundle_requests
        job_handler(bundles.JOB_KIND, run=bundles.bundle_execute, on_dead=bundles.bundle_failed)
        job_handler(bundles.EXPIRY_JOB_KIND, run=bundles.bundle_expire, on_dead=bundles.bundle_expiry_failed)
        AFTER_SEAL.append(bundle_signing.bundles_sign)
