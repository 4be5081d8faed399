# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
#   "httpx2>=2.10,<3",
# ]
# ///
"""Score completions with a reward model, rank them, or keep the best.

    uv run scripts/score.py --model_name_or_path runs/mine --input completions.jsonl --output scored.jsonl
    uv run scripts/score.py --model_name_or_path runs/mine --input prompts.jsonl --generate_with runs/sft --best_of 16 --output best.jsonl
    uv run scripts/score.py --list_public_models
    uv run scripts/score.py --model_name_or_path runs/mine --prompt "What is 2 + 2?" --completions "4." "A fish."
    uv run scripts/score.py --server http://127.0.0.1:8000 --input completions.jsonl --output scored.jsonl
    uv run scripts/score.py --check_server http://127.0.0.1:8000 --api vllm --model_name_or_path runs/mine

Reads   rows with prompt and completion, completions or responses; messages; chosen and rejected (references/scoring.md);
        for a process reward model also prompt and steps, and completions that are lists of steps (references/process.md)
Writes  the input rows with `reward` or `rewards`, in input order, ids and every other column kept; a process reward model
        adds `steps` and `step_rewards`, the probability that each step is correct, null where it did not fit
Scores are raw fp32 rewards: higher is better, their zero means nothing, compare them within a prompt only.
"""

from reward_modeling import cli
from reward_modeling.program import main_guard
from reward_modeling.row_scoring import list_public_models, score
from reward_modeling.score_settings import Output, ScoreSettings


def parser() -> cli.Parser:
  return cli.Parser(__doc__, "score.py", ScoreSettings)


def main(argv: list[str] | None = None) -> Output | None:
  settings = cli.settings(ScoreSettings, parser().parse(argv))
  if settings.list_public_models:
    return list_public_models()
  if settings.check_server:
    from reward_modeling.server_check import check_server

    return check_server(settings)
  return score(settings)


if __name__ == "__main__":
  main_guard(main)
