# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
# ]
# ///
"""Say which format data has and what its rows are, convert them, and list what is wrong with them.

    uv run scripts/check_data.py pairs.jsonl --output canonical.jsonl
    uv run scripts/check_data.py train.parquet --eval_dataset_name held_out.jsonl --drop identical duplicate --output clean.jsonl
    uv run scripts/check_data.py pairs.csv --model_name_or_path MODEL --max_length 1024 --drop over_length --layout original --output clean.csv

Reads   JSONL, JSON, CSV, TSV (each also .gz), Parquet, folders, datasets saved to disk, hub ids
Writes  findings on stderr, one JSON object on stdout, JSON Lines or the files' own layout to --output
Exits   0 without error findings, 3 with them (the JSON is printed all the same) or when the data cannot be read (the JSON
        is then {"error": {"message", "where", "hint"}})
"""

from reward_modeling import cli
from reward_modeling.data_check import CheckOutput, CheckSettings, check_data, list_checks, list_formats
from reward_modeling.program import main_guard


def parser() -> cli.Parser:
  return cli.Parser(__doc__, "check_data.py", CheckSettings)


def main(argv: list[str] | None = None) -> CheckOutput:
  settings = cli.settings(CheckSettings, parser().parse(argv))
  if settings.list_formats is not None:
    return list_formats(settings.list_formats)
  if settings.list_checks:
    return list_checks()
  return check_data(settings)


if __name__ == "__main__":
  main_guard(main)
