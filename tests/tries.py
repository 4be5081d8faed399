"""Generated token sequences that share beginnings: what packing must lay out without a mistake."""

from hypothesis import strategies as st

tokens = st.integers(0, 3)
beginning = st.lists(tokens, max_size=20)


@st.composite
def tries(draw):
  """Sequences with duplicates, prefixes of one another, single tokens, and shared beginnings at several depths."""
  stems = draw(st.lists(beginning, min_size=1, max_size=4))
  made = []
  for _ in range(draw(st.integers(1, 14))):
    parts = [*draw(st.lists(st.sampled_from(stems), max_size=3)), draw(st.lists(tokens, max_size=6))]
    made.append([token for part in parts for token in part] or [draw(tokens)])
  return made + draw(st.lists(st.sampled_from(made), max_size=3))
