# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "torch>=2.13,<2.16",
#     "transformers>=5.23,<5.25",
#     "trl>=1.16,<1.17",
#     "datasets>=5.2,<6",
#     "peft>=0.21,<0.22",
#     "accelerate>=1.15,<1.16",
#     "rich>=14,<16",
#     "pyyaml>=6,<7",
#     "scipy>=1.14,<2",
# ]
# ///
"""Train an outcome reward model: one score for a whole answer, from human or verifier preferences.

    uv run scripts/train.py --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name trl-lib/ultrafeedback_binarized --output_dir runs/uf
    uv run scripts/train.py --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name pairs.jsonl --output_dir runs/mine --val_set_size 0.1
    uv run scripts/train.py --config assets/recipes/qwen.yaml --dataset_name pairs.jsonl --output_dir runs/qwen

Reads   comparisons and rankings in any format of references/data.md
Writes  OUT/ a plain Hugging Face sequence classifier with reward_model.json beside it, OUT/run.json, OUT/checkpoint-*
Method  Bradley-Terry, arXiv:2203.02155 Eq. 1. The saved model is reloaded and compared before it appears in OUT.

Any other field of trl.RewardConfig is accepted by its own name: --weight_decay 0.01 --logging_steps 5 --report_to tensorboard
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward_modeling import arguments as flags
from reward_modeling.console import main_guard
from reward_modeling.training.pairs import Pairs
from reward_modeling.training.settings import (
    DataSettings,
    LoraSettings,
    ModelSettings,
    OutputSettings,
    Settings,
    SizeSettings,
)

if TYPE_CHECKING:
    from reward_modeling.training.results import ModelOutput


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="train.py")
    flags.add_settings(parser, ModelSettings)
    flags.add_text_format_argument(flags.add_dataset_arguments(parser, training=True))
    flags.add_settings(parser, DataSettings, OutputSettings, Pairs, LoraSettings, SizeSettings)
    return parser


def main(argv: list[str] | None = None) -> ModelOutput | None:
    required = ("model_name_or_path", "dataset_name", "output_dir")
    args = flags.parse(parser(), argv, required=required, trainer_fields=True)
    from reward_modeling.training import runs

    settings, kind = flags.settings(Settings, args), flags.settings(Pairs, args)
    return runs.train(kind, settings, flags.trainer_fields(kind.config_class, args.trainer_arguments, "train.py"))


if __name__ == "__main__":
    main_guard(main)
