"""What people are told of an evaluation, in sentences with what to do next."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Diagnostic(NamedTuple):
    """Where it `applies` to a summary, `sentence` (a format string over its attributes) is worth saying, and `next` doing."""

    applies: Callable[[Any], bool]
    sentence: str
    next: str


def diagnosed(summary: object, diagnostics: Mapping[str, Diagnostic]) -> list[str]:
    applying = [one for one in diagnostics.values() if one.applies(summary)]
    return [f"{one.sentence}. Next: {one.next}.".format(**vars(summary)) for one in applying]


def spelled(name: str) -> str:
    return name.replace("_", " ")
