"""Two reward models on the same pairs: which is better, is it luck, and where?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..terminal import log, table
from .inputs import subsets
from .intervals import Estimate
from .pair_measures import NO_SUBSET, PairedComparison
from .pairs import PairEvaluation, compare_models, show_comparison

LEVEL = 0.05


@dataclass(frozen=True)
class SubsetComparison:
    """Two models on the pairs of one subset."""

    n_pairs: int
    accuracy_a: Estimate
    accuracy_b: Estimate
    difference: Estimate
    """a - b."""
    mcnemar_p: float
    p: float
    """By prompt, corrected for the number of subsets (Holm 1979): under 0.05 the difference is no luck."""


@dataclass(frozen=True)
class ComparedModels:
    """verdict: which is better, and whether it could be luck."""

    whole: PairedComparison
    subsets: dict[str, SubsetComparison]
    verdict: str


def compare(
    first: PairEvaluation, second: PairEvaluation, names: tuple[str, str], subset_column: str | None = None
) -> ComparedModels:
    """On the whole and, where the pairs have subsets, on each."""
    whole = compare_models(first, second)
    of = subsets([pair for pair, _, _ in first.scored], subset_column) or []
    named = [NO_SUBSET if name is None else str(name) for name in of]
    parts = {name: _compare_part(first, second, [one == name for one in named]) for name in sorted(set(named))}
    found = {name: part for name, part in parts.items() if part}
    corrected = holm([part.prompt_sign_test_p for part in found.values()])
    rows = {
        name: SubsetComparison(part.n_pairs, part.accuracy_a, part.accuracy_b, part.difference, part.mcnemar_p, p)
        for (name, part), p in zip(found.items(), corrected, strict=True)
    }
    return ComparedModels(whole, rows, _verdict(whole, rows, names))


def _compare_part(first: PairEvaluation, second: PairEvaluation, kept: Sequence[bool]) -> PairedComparison | None:
    """None where no pair of the part was scored by both."""
    both = list(zip(first.scored, second.scored, kept, strict=True))
    rows = [(a, b) for a, b, keep in both if keep and None not in (*a[1:], *b[1:])]
    if not rows:
        return None
    return compare_models(replace(first, scored=[a for a, _ in rows]), replace(second, scored=[b for _, b in rows]))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the k-th smallest of m times m - k + 1, never falling. Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = most
    return corrected


def _verdict(whole: PairedComparison, parts: dict[str, SubsetComparison], names: tuple[str, str]) -> str:
    p, gap = whole.prompt_sign_test_p, whole.difference
    shown = p < LEVEL and not gap.low <= 0 <= gap.high
    numbers = (
        f"accuracy {whole.accuracy_a.value:.3f} against {whole.accuracy_b.value:.3f}, difference {gap:+.3f}, p {p:.2g}"
    )
    if shown:
        said = f"{names[gap.value < 0]} is better than {names[gap.value > 0]}: {numbers}"
    else:
        said = f"it is not shown which of {names[0]} and {names[1]} is better: {numbers}"
    split = [
        name for name, part in parts.items() if part.p < LEVEL and (not shown or part.difference.value * gap.value < 0)
    ]
    return f"{said}; but they differ on {', '.join(split)}" if split else said


def show_compared(found: ComparedModels, first: str, second: str) -> None:
    """The verdict, then the tables, on stderr."""
    log(found.verdict)
    show_comparison(found.whole, first, second)
    rows = [
        [
            name,
            one.n_pairs,
            f"{one.accuracy_a:.3f}",
            f"{one.accuracy_b:.3f}",
            f"{one.difference:+.3f}",
            one.mcnemar_p,
            one.p,
        ]
        for name, one in found.subsets.items()
    ]
    if rows:
        table(
            "two models by subset", ["", "n", "A [95 %]", "B [95 %]", "A - B [95 %]", "McNemar p", "p, corrected"], rows
        )
