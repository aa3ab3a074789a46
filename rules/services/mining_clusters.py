"""Stage 3: topics and clusters of the micro-rules."""

from django.db import connection, transaction

from pld_app.errors import InvalidInput
from rules.mining.clusters import Clustering, ClusterParameters, Method, cluster_microrules
from rules.mining.names import topic_terms
from rules.mining.report import agreement_of, clustering_figures
from rules.models import Cluster, MicroRule
from rules.schemas import MiningParameters
from rules.services.mining_map import map_points, map_write
from rules.services.mining_run import RunContext
from rules.services.mining_vectors import Mined, mined_of

# DBSCAN holds every pair within its radius: some 200 MB of a one-domain set of this size, and 3 GB at 20,000.
MAX_COMPARED = 5_000


def clusters_write(context: RunContext) -> None:
    """Cluster the micro-rules and write the outcome in one transaction; a repeated call writes the same anew."""
    mined = mined_of(context)
    if not mined.rules:
        raise InvalidInput("No trace gave a micro-rule. See the failed extractions of this run.")
    chosen = context.parameters
    clustering = cluster_microrules(mined.vectors, mined.labels, _cluster_parameters(chosen, chosen.method))
    figures = _figures(mined, clustering) | {"comparison": _comparison(mined, clustering, chosen)}
    placed = map_points(mined, clustering, neighbours=chosen.neighbours, seed=chosen.seed)
    with transaction.atomic():
        context.check_lease()
        _clusters_replace(context, mined, clustering)
        map_write(mined, placed)
        context.run.figures = figures
        context.run.save(update_fields=["figures"])
    context.progress(len(mined.rules), len(mined.rules))


def _cluster_parameters(chosen: MiningParameters, method: Method) -> ClusterParameters:
    return ClusterParameters(
        method=method,
        neighbours=chosen.neighbours,
        resolution=chosen.resolution,
        eps=chosen.eps,
        min_samples=chosen.min_samples,
        seed=chosen.seed,
    )


def _comparison(mined: Mined, clustering: Clustering, chosen: MiningParameters) -> dict[str, object] | None:
    """What the paper's DBSCAN makes of the same vectors, and how far both agree (AMI of the topics); None: not asked.

    A set too big for its memory has only "left_out", the limit.
    """
    if not chosen.compare_dbscan or chosen.method == "dbscan":
        return None
    if len(mined.rules) > MAX_COMPARED:
        return {"method": "dbscan", "left_out": MAX_COMPARED}
    other = cluster_microrules(mined.vectors, mined.labels, _cluster_parameters(chosen, "dbscan"))
    agreement = agreement_of(clustering.topics, other.topics)
    return {
        "method": "dbscan",
        "eps": chosen.eps,
        "min_samples": chosen.min_samples,
        "agreement": agreement,
    } | _figures(mined, other)


def _clusters_replace(context: RunContext, mined: Mined, clustering: Clustering) -> None:
    run = context.run
    run.clusters.all().delete()
    terms = topic_terms(mined.texts, clustering.topics, labels=run.task.labels)
    first_row: dict[int, int] = {}
    for row, number in enumerate(clustering.clusters.tolist()):
        first_row.setdefault(number, row)
    rows = {
        number: Cluster(
            run=run,
            number=number + 1,
            topic=int(clustering.topics[first_row[number]]) + 1,
            terms=", ".join(terms[int(clustering.topics[first_row[number]])])[:200],
            label=mined.rules[first_row[number]].trace.label,
            size=size,
        )
        for number, size in enumerate(clustering.cluster_sizes)
    }
    Cluster.objects.bulk_create(rows.values())
    placed = [
        (rule.pk, rows[number].pk)
        for rule, number in zip(mined.rules, clustering.clusters.tolist(), strict=True)
        if number >= 0
    ]
    _members_update(placed)


def _members_update(placed: list[tuple[int, int]]) -> None:
    # One statement for any number of rows: bulk_update would build a CASE of a line for each.
    table = MicroRule._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} m SET cluster_id = v.cluster "  # noqa: S608  # the table's name is our own
            "FROM unnest(%s::bigint[], %s::bigint[]) AS v(rule, cluster) WHERE m.id = v.rule",
            [[rule for rule, _cluster in placed], [cluster for _rule, cluster in placed]],
        )


def _figures(mined: Mined, clustering: Clustering) -> dict[str, object]:
    """The report's figures. The yardstick is read here for the first time, after all is decided."""
    marks = [rule.trace.metadata.get("yardstick") for rule in mined.rules]
    yardstick = [str(mark) for mark in marks] if all(marks) else None
    figures = clustering_figures(clustering.topics, clustering.clusters, mined.labels, yardstick)
    trials = [
        {"resolution": trial.resolution, "stability": round(trial.stability, 4), "topics": round(trial.topics, 1)}
        for trial in clustering.trials
    ]
    return figures.as_json() | {"noise": clustering.noise, "resolution": clustering.resolution, "trials": trials}
