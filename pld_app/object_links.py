"""Where the page of an object is: each app registers the kinds it knows, so that the log needs to know none of them."""

from collections.abc import Callable

# From the object's id, as an event has it, to its address; "" for one without a page.
type Finder = Callable[[int], str]

_FINDERS: dict[str, Finder] = {}


def link_register(object_type: str, find: Finder) -> None:
    """Register where objects of a type are shown; called from an app's `ready`."""
    _FINDERS[object_type] = find


def object_link(object_type: str, object_id: str) -> str:
    """The address of an object's page, or "" for a kind or an id without one."""
    find = _FINDERS.get(object_type)
    if find is None or not object_id.isascii() or not object_id.isdigit() or len(object_id) > 18:
        return ""
    return find(int(object_id))
