"""20,000 generated rows, most of them malformed, over all formats and kinds of files: every row is kept or counted.

Whatever is in a file, the only exceptions are the project's own, and what was read can be written as JSON and in UTF-8.
"""

import contextlib
import copy
import csv
import gzip
import io
import json
import random

from reward_modeling.data.formats import ANSWERS, ANYTHING, FORMATS, INPUT_LIKE, OPEN, PROMPTS
from reward_modeling.data.reading import load, stream
from reward_modeling.data.records import comparisons, equal_scores, prompts, solutions, to_score
from reward_modeling.data.writing import to_row
from reward_modeling.errors import DataError, UserError

FILES, ROWS = 500, 40
SUFFIXES = (".jsonl", ".csv", ".json", ".parquet", ".jsonl.gz")

MESSAGE = {"role": "assistant", "content": "4"}
VALUES = (
  *(None, True, False, 0, 1, -1, 2, 3.5, 1e308, -1e308, 10**30, 10**310, float("inf"), float("-inf"), float("nan")),
  *(
    "",
    " ",
    "4",
    "0",
    "1",
    "true",
    "nan",
    "\x00",
    "é\u202e\u2028",
    "\ud83d",
    "\udce9",
    "🎉",
    "x" * 5000,
    "\n\nHuman: a",
  ),
  *([], [[]], {}, [None], [1, "a"], ["a", None], ["a", ""], [True, 1], {"a": 1}, [MESSAGE], MESSAGE, [MESSAGE, 3]),
  *(
    {"role": "wizard", "content": "4"},
    {"role": "user"},
    {"role": ["user"], "content": ["a"]},
    {"from": 3, "value": "x"},
  ),
  {"role": "assistant", "content": None, "tool_calls": "{"},
  {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": '{"a": 1}'}}, 3]},
  {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "[" * 3000}},
  {"role": "assistant", "content": [{"type": "text", "text": 3}]},
  *(
    json.dumps([MESSAGE]),
    str([MESSAGE]),
    "[{'role': 'user', 'content': 'cut",
    "[{'role': 'a'}\n {'role': 'b'}]",
    "['a' 'b']",
  ),
  *("[1, 2", "{'a': {1, 2}}", "[" * 400, "[{'role': 'user', 'content': " + "-" * 3000 + "1}]", '"[{\\"role\\": 1}]"'),
)
NAMES = ("winner", "tie", "label", "labels", "scores", "margin", "weight", "tools", "id", "steps", "extra", "é", "")


def nested(depth):
  value = "x"
  for _ in range(depth):
    value = [value]
  return value


def mutated(row, chance, names):
  """The row with one to three of its parts replaced, removed, added or wrapped."""
  row = copy.deepcopy(row)
  for _ in range(chance.randint(1, 3)):
    holder, key = row, None
    while isinstance(holder, (dict, list)) and holder:  # a random place in the row
      parent, key = holder, chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
      holder = parent[key]
      if chance.random() < 0.5:
        break
    what = chance.random()
    if key is None or what < 0.15:
      row[chance.choice(names)] = chance.choice(VALUES)
    elif what < 0.25:
      del parent[key]
    elif what < 0.3:
      parent[key] = nested(chance.choice((3, 40, 70, 200)))
    elif what < 0.4:
      parent[key] = [parent[key]]
    elif what < 0.5:
      parent[key] = json.dumps(parent[key]) if chance.random() < 0.5 else str(parent[key])
    else:
      parent[key] = copy.deepcopy(chance.choice(VALUES))
  return row


def rows_of_a_file(chance):
  name = chance.choice(list(FORMATS))
  share = chance.choice((0.2, 0.4, 0.9))
  names = NAMES + tuple(sorted(INPUT_LIKE)) if chance.random() < 0.05 else NAMES
  mixed = 0.05 * (chance.random() < 0.1)
  rows = []
  for _ in range(ROWS):
    other = chance.choice(list(FORMATS)) if chance.random() < mixed else name
    rows.append(mutated(FORMATS[other].example, chance, names) if chance.random() < share else FORMATS[other].example)
  return name, rows


RAW = (
  "[" * 100_000,
  '{"prompt": "p", "chosen": ' + "9" * 5000 + ', "rejected": "b"}',
  '{"prompt": "p", "prompt": "q", "chosen": "a", "rejected": "b"}',
  '{"prompt": "p", "chosen": {"a": 1, "a": 2}, "rejected": "b"}',
  '{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}',
  '{"prompt": "p", "chosen": ',
  "3",
  "null",
)


def lines_of(rows, chance):
  lines = [json.dumps(row).encode() for row in rows]
  for _ in range(chance.choice((0, 0, 1, 3))):
    raw = b"\xed\xa0\x80\xff" if chance.random() < 0.3 else chance.choice(RAW).encode()
    lines[chance.randrange(len(lines))] = raw
  return b"\n".join(lines)


def write(path, rows, chance):
  kind = path.name.partition(".")[2]
  if kind in ("jsonl", "jsonl.gz"):
    content = lines_of(rows, chance)
    path.write_bytes(gzip.compress(content, 1) if kind.endswith("gz") else content)
  elif kind == "json":
    path.write_text(json.dumps({"data": rows} if chance.random() < 0.2 else rows))
  elif kind == "csv":
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(
      path, "w", newline="", encoding="utf-8", errors="surrogateescape" if chance.random() < 0.5 else "replace"
    ) as file:
      writer = csv.writer(file)
      writer.writerow(names)
      for row in rows:
        cells = [row.get(name, "") for name in names]
        cells = [cell if isinstance(cell, str) else json.dumps(cell) for cell in cells]
        cells = [cell.replace("\ud83d", "?").replace("\0", "") for cell in cells]
        writer.writerow(cells[: len(cells) - (chance.random() < 0.02)])
  else:
    write_parquet(path, rows)


def write_parquet(path, rows):
  import pyarrow
  import pyarrow.parquet

  names = dict.fromkeys(name for row in rows for name in row)
  columns = {}
  for name in names:
    values = [row.get(name) for row in rows]
    try:
      columns[name] = pyarrow.array(values)
      pyarrow.parquet.write_table(pyarrow.table({"": columns[name]}), io.BytesIO())
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
      raw = [None if value is None else (value if isinstance(value, str) else json.dumps(value)) for value in values]
      raw = [None if value is None else value.encode("utf-8", "surrogatepass") for value in raw]
      lengths = pyarrow.array(raw, pyarrow.binary())
      columns[name] = pyarrow.StringArray.from_buffers(len(raw), *lengths.buffers()[1:], lengths.buffers()[0])
  pyarrow.parquet.write_table(pyarrow.table(columns), path)


def tiers_for(name, chance):
  """The formats to try for a file of this one, and now and then others."""
  if chance.random() < 0.1:
    return chance.choice((ANSWERS, ANYTHING, PROMPTS))
  return chance.choice((ANYTHING, PROMPTS)) if name in OPEN else chance.choice((ANSWERS, ANSWERS, ANYTHING, PROMPTS))


def writable(value):
  json.dumps(value, ensure_ascii=False, allow_nan=False, default=str).encode("utf-8")


def test_every_row_is_kept_or_counted(tmp_path):
  chance, outcomes = random.Random(0), {"read": 0, "refused": 0}
  for number in range(FILES):
    path = tmp_path / f"f{number}{chance.choice(SUFFIXES)}"
    name, rows = rows_of_a_file(chance)
    write(path, rows, chance)
    tiers = tiers_for(name, chance)
    options = {"tiers": tiers, "neutral": chance.choice(("bad", "good", "ignore", None))}
    options["winner_values"] = chance.choice((None, {"0": "a", "1": "b"}))
    try:
      records = load([str(path)], leave_out_unreadable=True, **options)
    except UserError as error:
      assert error.exit_code == 3 and error.render()
      writable(error.render())
      outcomes["refused"] += 1
      continue
    outcomes["read"] += 1
    expanded = any(FORMATS[name].expand for name in records.formats.values())  # then rows are parts of trees
    assert expanded or len(records.rows) + sum(records.set_aside.values()) == len(rows), path.name
    assert len(records.unreadable) == records.set_aside.get("unreadable", 0)
    writable([to_row(row) for row in records.rows])
    writable([records.unreadable, records.winner_values])
    for take in (comparisons, solutions, equal_scores):
      with contextlib.suppress(DataError):
        take(records)
    everything = len(records.every)
    with contextlib.suppress(DataError):  # empty prompts
      assert len(prompts(records).rows) == everything
    steps = chance.random() < 0.5
    try:
      scored = to_score(records, steps=steps).rows
    except DataError:
      scored = None
    if tiers is ANSWERS and scored is not None:
      assert len(scored) == everything
      writable([to_row(row) for row in scored])
      try:
        assert stream([str(path)], steps=steps, winner_values=options["winner_values"]).rows == everything
      except DataError:
        assert records.unreadable
    path.unlink()
  assert min(outcomes.values()) > 100, outcomes
