"""Who is named in a comment: "@" before a user name, or before a domain for all its reviewers."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

# What a user name may hold (Django's ASCII validator); an address such as a@b names nobody.
_NAMED = re.compile(r"(?<![\w@.+-])@([\w.+-]+)", re.ASCII)
_ENDINGS = ".+-"  # of a sentence rather than of a name, unless a name ends so


@dataclass(frozen=True)
class Mentions:
    """`user_ids` and `pools` in the order they are named, once each; `unknown` names, each with the nearest one."""

    user_ids: tuple[int, ...]
    pools: tuple[str, ...]
    unknown: tuple[tuple[str, str], ...]


def mentions_in(body: str, people: Mapping[str, int], pools: Collection[str]) -> Mentions:
    """The names in `body`; `people` is ids by user name in lower case. A person goes before a pool of that name."""
    users: dict[int, None] = {}
    named_pools: dict[str, None] = {}
    unknown: dict[str, str] = {}
    for written in _NAMED.findall(body):
        name = _known(written.lower(), people, pools)
        if name in people:
            users[people[name]] = None
        elif name in pools:
            named_pools[name] = None
        elif name:
            near = get_close_matches(name, [*people, *pools], n=1)
            unknown[name] = near[0] if near else ""
    return Mentions(tuple(users), tuple(named_pools), tuple(unknown.items()))


def _known(written: str, people: Mapping[str, int], pools: Collection[str]) -> str:
    """The longest name that was meant: "@ana." at the end of a sentence is ana, unless somebody is called "ana."."""
    name = written
    while name not in people and name not in pools and name and name[-1] in _ENDINGS:
        name = name[:-1]
    return name
