"""What every script prints is what its --json_schema says, and a schema that allowed anything would not pass."""

import copy
import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from conftest import SCRIPTS, run_main, toy_pairs, write_jsonl
from reward_modeling.results import SCRIPT_RESULTS, adapter, json_schema


def faults_of(script: str, output: dict) -> list[str]:
  """Where what a script printed breaks the types that its schema is made of; null stands for NaN, nothing is converted."""
  try:
    adapter(script).validate_json(json.dumps(output), strict=True)
  except ValidationError as error:
    return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
  return []


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder, pairs = tmp_path_factory.mktemp("files"), toy_pairs(16)
  both = [{"prompt": row["prompt"], "completions": [row["chosen"], row["rejected"]]} for row in pairs]
  steps = [
    {
      "prompt": f"{i}+2+2?",
      "completions": [f"{i}+2={i + 2}", f"{i + 2}+2={i + 4 + i % 2}"],
      "labels": [True, i % 2 == 0],
    }
    for i in range(12)
  ]
  points = [{"kl": kl, "proxy": kl**0.5, "gold": kl**0.5 - kl / 8} for kl in (0, 1, 4, 9, 16)]
  rows = {
    "pairs": pairs,
    "answers": both,
    "pools": [{**row, "correct": [True, False]} for row in both],
    "steps": steps,
    "solutions": [{"prompt": row["prompt"], "steps": row["completions"]} for row in steps],
    "references": [{"prompt": row["prompt"], "steps": row["completions"], "answer": "6"} for row in steps],
    "prompts": [{"prompt": row["prompt"]} for row in pairs[:8]],
    "points": points,
  }
  return {name: write_jsonl(folder / f"{name}.jsonl", of) for name, of in rows.items()}


RUNS = {
  "check_data.py": ["{pairs}", "{steps}", "--list_formats", "--list_formats shp kto", "--list_checks"],
  "train.py": ["--model_name_or_path {base} --dataset_name {pairs} --output_dir {out} --dry_run"],
  "train_process.py": [
    "--model_name_or_path {base} --dataset_name {steps} --output_dir {out} --dry_run --show_labels 1",
    "--model_name_or_path {base} --dataset_name {steps} --output_dir {out} --max_steps 1 --val_set_size 0.25",
  ],
  "label_steps.py": ["--model_name_or_path {base} --input {references} --max_new_tokens 2 --dry_run"],
  "score.py": [
    "--model_name_or_path {model} --input {answers}",
    "--model_name_or_path {model} --input {answers} --rank",
    "--model_name_or_path {model} --input {answers} --best_of 2 --output {out}",
    "--model_name_or_path {prm} --input {solutions}",
    "--model_name_or_path {model} --input {prompts} --generate_with {base} --best_of 2 --max_new_tokens 2",
  ],
  "evaluate.py": [
    "--model_name_or_path {model} --dataset_name {pairs} --compare {model}",
    "--model_name_or_path {prm} --dataset_name {steps}",
    "--model_name_or_path {model} --dataset_name {pools} --best_of_n 1 2",
    "--overoptimization {points}",
  ],
  "ppo.py": [
    "--model_name_or_path {base} --reward_model_path {model} --dataset_name {prompts} --output_dir {out} --dry_run",
    "--model_name_or_path {base} --reward_model_path {model} --dataset_name {prompts} --output_dir {out} "
    "--total_episodes 8 --response_length 2",
  ],
  "grpo.py": [
    "--model_name_or_path {base} --reward_model_path {model} --dataset_name {prompts} --output_dir {out} "
    "--max_completion_length 2 --dry_run",
    "--model_name_or_path {base} --reward_model_path {model} --dataset_name {prompts} --output_dir {out} "
    "--max_steps 1 --per_device_train_batch_size 2 --num_generations 2 --max_completion_length 2",
  ],
}


@pytest.mark.parametrize(("script", "command"), [(script, command) for script, of in RUNS.items() for command in of])
def test_what_a_script_prints_is_what_its_schema_says(
  script, command, files, tiny, toy_model, toy_process_model, tmp_path
):
  places = {"base": tiny("qwen2"), "model": toy_model[0], "prm": toy_process_model, "out": tmp_path / "out", **files}
  done = run_main(script, *(word.format(**places) for word in command.split()))
  assert done.returncode == 0, done.stderr
  assert faults_of(script, done.json) == []


def test_a_whole_training_run_prints_what_its_schema_says(toy_model):
  assert faults_of("train.py", toy_model[1]) == []


def mutants(output):
  """A key less, a key more, a word for a number."""
  for name in output:
    yield {key: value for key, value in output.items() if key != name}
    yield {**output, name: ["no", {"such": "thing"}]}
  yield {**output, "surprise": 1}
  for name in ("low", "n"):
    changed = copy.deepcopy(output)
    changed["evaluation"]["accuracy"][name] = "half"
    yield changed


def test_a_wrong_output_breaks_the_schema(toy_model):
  for mutant in mutants(toy_model[1]):
    assert faults_of("train.py", mutant)


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_every_script_prints_its_schema_before_anything_else(script):
  done = subprocess.run([sys.executable, SCRIPTS / script, "--json_schema"], capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (0, "")
  assert json.loads(done.stdout) == json_schema(script)
  assert script in SCRIPT_RESULTS


def test_the_text_below_a_field_is_its_description_in_types_made_of_it_too():
  assert json_schema("evaluate.py")["$defs"]["PairReport"]["properties"]["ties"]["description"].startswith("Pairs with")
  definitions = json_schema("train.py")["$defs"]
  assert definitions["TrainedModel"]["properties"]["evaluation"]["description"] == "On held-out data."
  bin = definitions["Bin"]
  assert "from" in bin["required"] and "How often that pick is right." in json.dumps(bin)
