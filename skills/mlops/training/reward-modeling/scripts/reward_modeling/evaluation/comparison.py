"""Two reward models on the same pairs: which is better, is it luck, and where?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .inputs import subsets
from .pair_measures import NO_SUBSET, PairedComparison
from .pairs import PairEvaluation, compare_models
from .report_page import Section

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class SubsetComparison(PairedComparison):
    """Two models on the pairs of one subset."""

    p: float
    """`prompt_sign_test_p`, corrected for the number of subsets (Holm 1979): under 0.05 the difference is no luck."""


def compare(
    first: PairEvaluation, second: PairEvaluation, names: tuple[str, str], subset_column: str | None = None
) -> tuple[PairedComparison, dict[str, SubsetComparison], str]:
    """(on all pairs, on each subset where there are some, which is better and whether it could be luck)."""
    whole = compare_models(first, second)
    of = subsets([pair for pair, _, _ in first.scored], subset_column) or []
    named = [NO_SUBSET if name is None else str(name) for name in of]
    parts = {name: _compare_part(first, second, [one == name for one in named]) for name in sorted(set(named))}
    found = {name: part for name, part in parts.items() if part}
    corrected = holm([part.prompt_sign_test_p for part in found.values()])
    by_subset = {
        name: SubsetComparison(**vars(part), p=p) for (name, part), p in zip(found.items(), corrected, strict=True)
    }
    return whole, by_subset, _verdict(whole, by_subset, names)


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


def comparison_section(
    whole: PairedComparison, by_subset: Mapping[str, SubsetComparison], first: str, second: str, verdict: str
) -> Section:
    rows = [
        [name, one.n_pairs, one.difference, one.accuracy_a, one.accuracy_b, one.mcnemar_p, p]
        for name, one, p in [("all", whole, whole.prompt_sign_test_p), *((k, v, v.p) for k, v in by_subset.items())]
    ]
    columns = ["", "pairs", "A - B", f"A: {first}", f"B: {second}", "McNemar p", "p, by prompt, corrected"]
    return Section("Two models", columns, rows, [f"{verdict}."], scale=(-0.5, 0.0, 0.5))
