"""Two reward models on the same pairs: which is better, is it luck, and where?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from .inputs import subsets
from .pair_measures import NO_SUBSET, PairedComparison
from .pairs import PairEvaluation, compare_models
from .report_page import Section

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class SubsetComparison(PairedComparison):
    p: float
    """`prompt_sign_test_p`, corrected for the number of subsets (Holm 1979): under 0.05 the difference is not luck."""


def compare(
    first: PairEvaluation, second: PairEvaluation, names: tuple[str, str], subset_column: str | None = None
) -> tuple[PairedComparison, dict[str, SubsetComparison], str]:
    """(on all pairs, on each subset where both scored some, which is better and whether it could be luck)."""
    whole, found = compare_models(first, second), {}
    of = subsets([pair for pair, _, _ in first.scored], subset_column) or []
    named = [NO_SUBSET if name is None else str(name) for name in of]
    for name in sorted(set(named)):
        kept = [
            one == name and None not in (*a, *b) for one, a, b in zip(named, first.scored, second.scored, strict=True)
        ]
        if any(kept):
            found[name] = compare_models(
                *(replace(one, scored=[*compress(one.scored, kept)]) for one in (first, second))
            )
    corrected = holm([part.prompt_sign_test_p for part in found.values()])
    parts = {name: SubsetComparison(**vars(found[name]), p=p) for name, p in zip(found, corrected, strict=True)}
    return whole, parts, _verdict(whole, parts, names)


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
    better = f"{names[gap.value < 0]} is better than {names[gap.value > 0]}"
    said = better if shown else f"it is not shown which of {names[0]} and {names[1]} is better"
    a, b = whole.accuracy_a.value, whole.accuracy_b.value
    said += f": accuracy {a:.3f} against {b:.3f}, difference {gap:+.3f}, p {p:.2g}"
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
