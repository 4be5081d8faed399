"""Leave out what findings are about, and nothing else: whole rows, or single completions of a ranking."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..records import Comparison, Ranking, ordered_pairs
from .findings import Finding, digest

Pair = tuple[int, int]
"""Places of the better and the worse completion."""


class Dropped(NamedTuple):
    """rows: what is left, by place. by_check: rows that are gone, under the finding that took each first. completions: those
    that are gone from rankings that stay."""

    rows: dict[int, Any]
    by_check: Counter[str]
    completions: Counter[str]


def drop_rows(rows: Sequence[Any], audited: Sequence[Any], findings: Iterable[Finding]) -> Dropped:
    """audited: the records of the rows in their order, a labeled ranking as its pairs.

    A ranking loses the completions that have the flaw; where the two of a pair have it together (identical, repeated,
    contradicting), one that repeats an earlier completion, else the one in most such pairs. Other rows, and rankings that
    then make no pair, go as a whole.
    """
    places: list[tuple[int, Pair | None]] = []
    for number, row in enumerate(rows):
        is_ranked = isinstance(row, Ranking) and row.scores is not None
        places += [(number, pair) for pair in (ordered_pairs(row) if is_ranked else [None])]
    gone: dict[int, str] = {}
    cut: dict[int, dict[int, str]] = defaultdict(dict)
    for finding in findings:
        found: dict[int, list[tuple[Comparison, Pair]]] = defaultdict(list)
        for index in finding.indices:
            number, pair = places[index]
            if pair is None:
                gone.setdefault(number, finding.check)
            elif number not in gone:
                found[number].append((audited[index], pair))
        for number, pairs in found.items():
            cut[number] |= dict.fromkeys(_completions(rows[number], pairs, finding, cut[number]), finding.check)
            if not ordered_pairs(_without(rows[number], cut[number])):
                gone[number] = finding.check
    kept = {number: _without(row, cut.get(number)) for number, row in enumerate(rows) if number not in gone}
    completions = Counter(check for number, lost in cut.items() if number not in gone for check in lost.values())
    return Dropped(kept, Counter(gone.values()), completions)


def _completions(
    ranking: Ranking, found: list[tuple[Comparison, Pair]], finding: Finding, lost: dict[int, str]
) -> set[int]:
    """What a finding on these pairs of a ranking takes, beside what is lost already."""
    flawed = finding.of_answer
    if flawed:
        sides = [(record, zip(pair, (record.chosen, record.rejected), strict=True)) for record, pair in found]
        return {place for record, two in sides for place, answer in two if flawed(record, answer)} - lost.keys()
    texts = [digest(completion, {}) for completion in ranking.completions]
    pairs = [pair for _, pair in found if not lost.keys() & set(pair)]
    chosen: set[int] = set()
    while pairs:
        degree = Counter(place for pair in pairs for place in pair)
        worst = max(degree, key=lambda place: (texts.index(texts[place]) < place, degree[place], place))
        chosen.add(worst)
        pairs = [pair for pair in pairs if worst not in pair]
    return chosen


def _without(row: Any, lost: dict[int, str] | None) -> Any:
    """Lists of metadata with an entry for each completion lose theirs too."""
    if not lost:
        return row
    count = len(row.completions)

    def left(values: Any) -> Any:
        if not isinstance(values, list) or len(values) != count:
            return values
        return [value for place, value in enumerate(values) if place not in lost]

    metadata = {name: left(value) for name, value in row.metadata.items()}
    return replace(row, completions=left(row.completions), scores=left(row.scores), metadata=metadata)
