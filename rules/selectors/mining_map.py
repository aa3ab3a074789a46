"""The map of a run's micro-rules: marks, topics and where each stands."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from django.db.models import QuerySet

from rules.models import Cluster, MicroRule, MiningRun

WIDTH, HEIGHT, RIM = 800, 600, 24
SHAPES = 6  # one for each of a task's first labels; further ones share a ring
TONES = 8
_TITLE_CHARS = 90
# Topics nearer than this share of the map should differ in tone.
_NEAR = 4


@dataclass(frozen=True)
class MapTopic:
    """One topic: where its name stands on the drawing, and how its micro-rules divide by label, most first."""

    number: int
    terms: str
    size: int
    labels: list[tuple[str, int]]
    x: float | None
    y: float | None
    tone: int


@dataclass(frozen=True)
class MapMark:
    """One micro-rule on the drawing; its shape says the label, its tone the topic."""

    trace_id: int
    x: float
    y: float
    shape: int
    tone: int
    title: str


@dataclass(frozen=True)
class MiningMap:
    """What is drawn: `marks` of the whole run or of one topic, of `total` placed micro-rules there."""

    topics: list[MapTopic]
    marks: list[MapMark]
    total: int
    shapes: list[tuple[str, int]]


@dataclass(frozen=True)
class _Point:
    trace_id: int
    label: str
    topic: int
    text: str
    x: float
    y: float


def mining_map(run: MiningRun, topic: int | None = None) -> MiningMap:
    """The map of a run; with a topic only its marks, spread over the whole drawing. Two queries at any size."""
    clusters = list(run.clusters.order_by("topic", "number"))
    points = _points(run, {cluster.pk: cluster for cluster in clusters})
    if topic is not None:
        points = [point for point in points if point.topic == topic]
    points = _on_drawing(points, zoomed=topic is not None)
    topics = _topics(clusters, points)
    tones = {one.number: one.tone for one in topics}
    terms = {one.number: one.terms for one in topics}
    shapes = _shapes(run.task.labels, clusters)
    marks = [
        MapMark(
            point.trace_id, point.x, point.y, shapes[point.label], tones[point.topic], _title(point, terms[point.topic])
        )
        for point in points
    ]
    total = sum(cluster.size for cluster in clusters if topic in (None, cluster.topic))
    return MiningMap(topics, marks, total, sorted(shapes.items(), key=lambda item: item[1]))


def topic_members(run: MiningRun, topic: int) -> QuerySet[MicroRule]:
    """The micro-rules of a topic, drawn or not, by label and trace."""
    members = run.micro_rules.filter(cluster__run=run, cluster__topic=topic)
    return members.select_related("trace", "cluster").order_by("cluster__number", "trace_id")


def _points(run: MiningRun, clusters: dict[int, Cluster]) -> list[_Point]:
    rows = run.micro_rules.exclude(map_x=None).exclude(cluster=None).order_by("trace_id")
    found = []
    for trace_id, cluster_id, text, x, y in rows.values_list("trace_id", "cluster_id", "text", "map_x", "map_y"):
        cluster = clusters[cluster_id] if cluster_id is not None else None
        if cluster is not None and x is not None and y is not None:
            found.append(_Point(trace_id, cluster.label, cluster.topic, text, x, y))
    return found


def _on_drawing(points: Sequence[_Point], *, zoomed: bool) -> list[_Point]:
    """The points in the drawing's units; zoomed, the given ones fill it."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    across = (min(xs), max(xs)) if zoomed and xs else (-1.0, 1.0)
    down = (min(ys), max(ys)) if zoomed and ys else (-1.0, 1.0)
    return [
        _Point(
            point.trace_id,
            point.label,
            point.topic,
            point.text,
            _place(point.x, across, WIDTH),
            _place(point.y, down, HEIGHT),
        )
        for point in points
    ]


def _place(value: float, span: tuple[float, float], length: int) -> float:
    low, high = span
    share = (value - low) / (high - low) if high > low else 0.5
    return round(RIM + share * (length - 2 * RIM), 1)


def _topics(clusters: Iterable[Cluster], points: Iterable[_Point]) -> list[MapTopic]:
    places: dict[int, list[_Point]] = defaultdict(list)
    for point in points:
        places[point.topic].append(point)
    terms: dict[int, str] = {}
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for cluster in clusters:
        terms.setdefault(cluster.topic, cluster.terms)
        counts[cluster.topic][cluster.label] += cluster.size
    centres = {number: _centre(own) for number, own in places.items()}
    tones = _tones(centres)
    return [
        MapTopic(
            number,
            terms[number],
            counts[number].total(),
            counts[number].most_common(),
            centres[number][0] if number in centres else None,
            centres[number][1] if number in centres else None,
            tones.get(number, 0),
        )
        for number in sorted(terms)
    ]


def _centre(points: Sequence[_Point]) -> tuple[float, float]:
    # The median: a stray member must not pull the topic's number into another topic.
    return round(median(point.x for point in points), 1), round(median(point.y for point in points), 1)


def _tones(centres: dict[int, tuple[float, float]]) -> dict[int, int]:
    """A tone for each topic, the rarest of those its nearest neighbours do not have."""
    tones: dict[int, int] = {}
    used: Counter[int] = Counter()
    for number in sorted(centres):
        x, y = centres[number]
        near = sorted(tones, key=lambda one: (centres[one][0] - x) ** 2 + (centres[one][1] - y) ** 2)[:_NEAR]
        taken = {tones[one] for one in near}
        tone = min((one for one in range(TONES) if one not in taken), key=lambda one: (used[one], one))
        tones[number] = tone
        used[tone] += 1
    return tones


def _shapes(labels: Sequence[str], clusters: Iterable[Cluster]) -> dict[str, int]:
    """The shape of each label that occurs, by its place in the task's list."""
    place = {label: min(number, SHAPES) for number, label in enumerate(labels)}
    return {cluster.label: place.get(cluster.label, SHAPES) for cluster in clusters}


def _title(point: _Point, terms: str) -> str:
    text = " ".join(point.text.split())
    short = text if len(text) <= _TITLE_CHARS else text[: _TITLE_CHARS - 1] + "…"
    return f"{point.topic}. {terms} · {point.label}\n{short}"
