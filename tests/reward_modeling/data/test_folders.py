"""Which files of a folder are read: one split of one configuration, as `datasets` names them."""

import json

import pytest

from reward_modeling.data.sources import data_files
from reward_modeling.errors import DataError


def folder(place, *names, readme=None):
  for name in names:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(json.dumps({"prompt": name}))
  if readme:
    (place / "README.md").write_text(f"---\n{readme}\n---\nabout")
  return place


def chosen(place, split=None, config=None):
  return [path.relative_to(place).as_posix() for path in data_files(place, split, config)]


SHARDS = ["part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl"]
PREFS = [
  f"data/{split}_{task}-0000{i}-of-00002.parquet"
  for split in ("train", "test")
  for task in ("prefs", "sft")
  for i in (0, 1)
]

# files -> {(split, configuration): what is read, or what the error says}
LAYOUTS = {
  "a hub dataset": (
    PREFS,
    {
      ("train_prefs", None): PREFS[:2],
      ("test_sft", None): PREFS[6:],
      ("train", None): r"no files of the split train \(test_prefs, test_sft, train_prefs, train_sft\)",
      (None, None): r"files of several splits \(test_prefs, test_sft, train_prefs, train_sft\)",
    },
  ),
  "the only one of that word": (
    PREFS[:2] + PREFS[4:6],
    {("train", None): PREFS[:2], ("test", None): PREFS[4:6], ("dev", None): "no files"},
  ),
  "not sharded": (
    ["train_prefs.jsonl", "train_sft.jsonl", "test_prefs.jsonl"],
    {
      ("train_prefs", None): ["train_prefs.jsonl"],
      ("train", None): "no files of the split train",
      (None, None): "several splits",
    },
  ),
  "an exact name wins": (["train.jsonl", "train_sft.jsonl"], {("train", None): ["train.jsonl"]}),
  "folders named by split": (
    ["train_sft/0.jsonl", "train_sft/1.jsonl", "test_sft/0.jsonl"],
    {
      ("train_sft", None): ["train_sft/0.jsonl", "train_sft/1.jsonl"],
      ("test", None): ["test_sft/0.jsonl"],
      (None, None): "several splits",
    },
  ),
  "words of datasets": (
    ["pairs.training.jsonl", "pairs-dev.jsonl", "evaluation.jsonl"],
    {
      ("train", None): ["pairs.training.jsonl"],
      ("validation", None): ["pairs-dev.jsonl"],
      ("test", None): ["evaluation.jsonl"],
    },
  ),
  "parts": (
    ["math-train-0.jsonl", "math-train-1.jsonl"],
    {(None, None): ["math-train-0.jsonl", "math-train-1.jsonl"]},
  ),
  "shards without a split": (SHARDS, {(None, None): SHARDS, ("train", None): SHARDS}),
  "folders that count": (
    ["chunk-000/a.jsonl", "chunk-001/a.jsonl"],
    {(None, None): ["chunk-000/a.jsonl", "chunk-001/a.jsonl"]},
  ),
  "configurations": (
    ["en/train-00000-of-00001.jsonl", "de/train-00000-of-00001.jsonl", "de/test-00000-of-00001.jsonl"],
    {
      (None, None): r"several configurations \(de, en\)",
      ("train", "en"): ["en/train-00000-of-00001.jsonl"],
      (None, "de"): r"several splits \(test, train\)",
      ("train", "fr"): r"no configuration fr \(de, en\)",
    },
  ),
  "configurations named like splits": (
    ["math-test/train.jsonl", "code-test/train.jsonl"],
    {
      (None, None): r"several configurations \(code-test, math-test\)",
      ("train", "math-test"): ["math-test/train.jsonl"],
    },
  ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_is_read_as_its_names_say(tmp_path, name):
  files, asked = LAYOUTS[name]
  place = folder(tmp_path, *files)
  for (split, config), expected in asked.items():
    if isinstance(expected, list):
      assert chosen(place, split, config) == expected
    else:
      with pytest.raises(DataError, match=expected) as caught:
        chosen(place, split, config)
      assert "--dataset_split" in caught.value.hint or "--dataset_config" in caught.value.hint


CONFIGS = """configs:
- config_name: one
  data_files:
  - split: train_prefs
    path: a/x*.jsonl
  - split: test
    path: [a/y.jsonl, b/missing.jsonl]
- config_name: two
  data_dir: b
  data_files: z.jsonl
"""


def test_the_readme_of_a_dataset_says_which_files_are_which(tmp_path):
  place = folder(tmp_path, "a/x1.jsonl", "a/x2.jsonl", "a/y.jsonl", "b/z.jsonl", readme=CONFIGS)
  assert chosen(place, "train_prefs", "one") == ["a/x1.jsonl", "a/x2.jsonl"]
  assert chosen(place, "test", "one") == ["a/y.jsonl"]
  assert chosen(place, "train", "two") == ["b/z.jsonl"]
  with pytest.raises(DataError, match=r"several configurations \(one, two\)"):
    chosen(place, "train")
  folder(tmp_path, readme=CONFIGS + "  default: true\n")
  assert chosen(place) == ["b/z.jsonl"]


@pytest.mark.parametrize(
  "configs",
  ["configs: 3", "configs:\n- data_files: ../secret.jsonl", "configs: [", "configs:\n- data_files: [{path: 3}]"],
)
def test_a_readme_that_cannot_be_read_is_an_error(tmp_path, configs):
  with pytest.raises(DataError, match=r"the `configs` in .*README.md cannot be read"):
    chosen(folder(tmp_path, "a.jsonl", readme=configs))
  assert chosen(folder(tmp_path, "a.jsonl", readme="license: mit")) == ["a.jsonl"]
