"""Planning: every sequence can be read back from its row, and no shared token is laid out twice."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_modeling import packing
from reward_modeling.packing import PackedRow, Segment, pack, pack_together, padded_batches, pieces, place_at
from tries import tries


def path_of(segment: Segment) -> list[int]:
  return [place for run in segment.path for place in range(*run)]


def read_back(row: PackedRow) -> dict[int, list[int]]:
  """The sequences of a row, each spelled by following the path of the segment that holds its end."""
  found = {}
  for index, end in zip(row.sequences, row.ends, strict=True):
    segment = next(s for s in row.segments if s.start <= end < s.start + s.size)
    spelled = [row.ids[place] for place in path_of(segment)]
    found[index] = spelled + row.ids[segment.start : end + 1]
  return found


@given(tries(), st.one_of(st.none(), st.integers(1, 60)), st.booleans())
def test_every_sequence_is_in_one_row_and_reads_back(sequences, budget, share):
  found = {}
  for row in pack(sequences, budget, share=share):
    here = read_back(row)
    assert not set(here) & set(found)
    found |= here
    assert len(row.segments) == 1 or budget is None or len(row.ids) <= budget
  assert [found[i] for i in range(len(sequences))] == sequences


@given(tries())
def test_layout_of_a_row(sequences):
  row = pack_together(sequences)
  for segment in row.segments:
    depth, path = segment.depth, path_of(segment)
    assert depth == len(path)
    assert row.positions[segment.start : segment.start + segment.size] == list(range(depth, depth + segment.size))
    assert all(place < segment.start for place in path), "attends to the future"
    assert all(a[1] < b[0] for a, b in pairwise(segment.runs)), "runs are in order, and as few as can be"
  sizes, keys = pieces(row.segments)
  starts = [sum(sizes[:i]) for i in range(len(sizes))]
  for segment, own in zip(row.segments, keys, strict=True):
    held = [row.ids[starts[p] + i] for p in own for i in range(sizes[p])]
    path = [row.ids[place] for place in path_of(segment)]
    assert held == path + row.ids[segment.start : segment.start + segment.size]
  assert sum(sizes) == len(row.ids)


@given(tries())
def test_places_are_those_of_each_token(sequences):
  row = pack_together(sequences)
  for number, runs, places in zip(row.sequences, row.runs, row.places, strict=True):
    assert [row.ids[place] for place in places] == sequences[number]
    assert [place_at(runs, i) for i in range(len(places))] == places
    with pytest.raises(IndexError):
      place_at(runs, len(places))


@given(tries())
def test_nothing_shared_is_laid_out_twice(sequences):
  """The number of tokens is that of the trie, up to beginnings too short to share."""
  unique = len({tuple(s[:i]) for s in sequences for i in range(1, len(s) + 1)})
  laid_out = len(pack_together(sequences).ids)
  assert unique <= laid_out <= unique + (packing.SHORTEST_SHARED - 1) * len(sequences)


def test_by_hand():
  prompt = list(range(100, 110))
  row = pack_together([[*prompt, 1, 2], [*prompt, 1, 3], [*prompt, 4]])
  assert row.ids == [*prompt, 1, 2, 3, 4]
  assert row.segments == [
    Segment(0, 12, 0, []),
    Segment(12, 1, 11, [(0, 11)]),
    Segment(13, 1, 10, [(0, 10)]),
  ]
  assert row.ends == [11, 12, 13] and row.positions[-2:] == [11, 10]
  assert pieces(row.segments) == ([10, 1, 1, 1, 1], [[0, 1, 2], [0, 1, 3], [0, 4]])


def test_a_full_row_is_cut_between_prompts_not_within_one():
  groups = [[[prompt] * 20 + [i] * 5 for i in range(4)] for prompt in (10, 11, 12)]
  rows = list(pack([sequence for group in groups for sequence in group], 75))
  assert [sorted(row.sequences) for row in rows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
  assert [len(row.ids) for row in rows] == [40, 40, 40]


def test_a_large_group_stays_whole_and_small_ones_do_not_grow_rows():
  large = [[7] * 1000 + [i] * 100 for i in range(64)]
  assert [len(row.ids) for row in pack(large)] == [1000 + 64 * 100]
  assert len(list(pack(large, 2048))) == 7, "each row computes the prompt again"
  endless = [[7] * 1000 + [i % 250, i // 250] * 50 for i in range(1000)]
  assert max(len(row.ids) for row in pack(endless)) < 8 * 1000 + 1000, "memory is bounded all the same"
  pairs = [[i] * 300 + [j] * 50 for i in range(20) for j in (30, 31)]
  rows = list(pack(pairs))
  assert all(len(row.ids) <= packing.ROW_TOKENS for row in rows)
  assert sum(len(row.ids) for row in rows) == 20 * 400, "no prompt is computed twice"


def test_a_window_bounds_what_is_planned_together(monkeypatch):
  monkeypatch.setattr(packing, "WINDOW", 3)
  rows = list(pack([[1] * 10 + [i] for i in range(7)]))
  assert [len(row.sequences) for row in rows] == [3, 3, 1]


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 500))
def test_padded_batches_hold_every_row_once_within_the_budget(lengths, budget):
  batches = [[i for (i,) in batch] for batch in padded_batches(range(len(lengths)), [[0] * n for n in lengths], budget)]
  assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
  for batch in batches:
    assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=3), st.integers(0, 1)), max_size=30))
def test_equal_rows_are_computed_once(drawn):
  ids, rows = [ids for ids, _ in drawn], [(tuple(ids), more) for ids, more in drawn]
  batches = list(padded_batches(rows, ids, 6))
  computed = [rows[equal[0]] for batch in batches for equal in batch]
  assert sorted(computed) == sorted(set(rows))
  assert sorted(i for batch in batches for equal in batch for i in equal) == list(range(len(rows)))
  assert all(rows[i] == rows[equal[0]] for batch in batches for equal in batch for i in equal)
