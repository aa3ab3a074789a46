"""The rows of an oversight report as JSON, and back as the figures the pages show: written once, read for ever.

Numbers are text with four decimals, so that the rows have canonical bytes and one hash.
"""

from collections.abc import Mapping
from typing import Any

from rules.agreement import Agreement, Estimate
from rules.selectors.quality import Pace, Quality

_COUNTS = ("judgements", "approved", "rejected", "edited")
_SHARES = ("seen_before", "fast", "overturned", "seeds_caught", "good_kept")
type Row = dict[str, Any]  # JSON as it is stored


def row_of(one: Quality) -> Row:
    """The figures of one person, or over everybody (`user` None), each with its n."""
    found = one.agreement
    return {
        "user": one.user_id,
        "name": one.name,
        **{name: getattr(one, name) for name in _COUNTS},
        "pace": {"median": _text(one.pace.median), "p90": _text(one.pace.p90), "n": one.pace.n},
        **{name: _estimate_row(getattr(one, name)) for name in _SHARES},
        "agreement": {name: _estimate_row(getattr(found, name)) for name in ("raw", "kappa", "ac1")} | {"n": found.n},
    }


def quality_from(row: Mapping[str, Any]) -> Quality:
    """The figures as they were written."""
    pace, found = row["pace"], row["agreement"]
    figures: dict[str, Any] = {name: row[name] for name in _COUNTS} | {name: _estimate(row[name]) for name in _SHARES}
    return Quality(
        name=row["name"],
        user_id=row["user"],
        pace=Pace(_number(pace["median"]), _number(pace["p90"]), pace["n"]),
        agreement=Agreement(
            n=found["n"], raw=_estimate(found["raw"]), kappa=_estimate(found["kappa"]), ac1=_estimate(found["ac1"])
        ),
        **figures,
    )


def _estimate_row(one: Estimate) -> Row:
    return {"value": _text(one.value), "low": _text(one.low), "high": _text(one.high), "n": one.n}


def _estimate(row: Mapping[str, Any]) -> Estimate:
    return Estimate(_number(row["value"]), _number(row["low"]), _number(row["high"]), row["n"])


def _text(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
