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

from reward_modeling import arguments as flags
from reward_modeling.console import DataError, listed, log, main_guard, warn
from reward_modeling.rendering import OVERLONG


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="train.py")
    flags.add_base_model_arguments(parser, OVERLONG, "truncate_prompt", "cut the start of the prompt, keep the answer")
    flags.add_training_data_arguments(parser, held_out="comparisons")
    run = flags.add_run_arguments(parser)
    flags.add_shared_prefix_argument(run)
    loss = parser.add_argument_group("loss")
    loss.add_argument(
        "--center_rewards_coefficient",
        type=flags.non_negative_number,
        default=0.01,
        metavar="C",
        help="pull the mean reward to zero; 0 switches it off (0.01)",
    )
    loss.add_argument(
        "--label_smoothing", type=flags.fraction, default=0.0, metavar="E", help="share of labels believed wrong (0)"
    )
    flags.add_flag(
        loss, "--use_margin", "use the margin or score columns of the data, where there are any", default=True
    )
    flags.add_lora_arguments(parser)
    flags.add_size_arguments(parser, rows="PAIRS")
    return parser


def main(argv: list[str] | None = None) -> dict:
    args = flags.parse(
        parser(), argv, required=("model_name_or_path", "dataset_name", "output_dir"), trainer_fields=True
    )
    from reward_modeling import checkpoints, output_folder

    flags.check_training_arguments(args)
    output_dir = output_folder.claim(
        args.output_dir,
        overwrite=args.overwrite_output_dir,
        resuming=bool(args.resume_from_checkpoint),
        dry_run=args.dry_run,
        inputs=(args.model_name_or_path, *args.dataset_name, *(args.eval_dataset_name or ())),
    )
    fields = trainer_fields(args)
    data = read_data(args)

    from reward_modeling import losses
    from reward_modeling.evaluation.pairs import evaluate_pairs, reward_statistics
    from reward_modeling.lengths import longest_input
    from reward_modeling.rendering import Renderer
    from reward_modeling.scoring import RewardModel
    from reward_modeling.training import outcome, resuming, runs

    resume = resuming.resume_point(args.resume_from_checkpoint, args.output_dir)
    loaded = checkpoints.load_for_training(
        args.model_name_or_path, chat_template_path=args.chat_template_path, seed=args.seed
    )
    for note in [f"head: {loaded.head}", *loaded.notes]:
        log(note)
    renderer = Renderer(
        loaded.tokenizer,
        max_length=longest_input(loaded.model, loaded.tokenizer, args.max_length),
        overlong=args.overlong,
        scored_at=checkpoints.scored_at(loaded.model),
        text_format=args.text_format or "chat",
    )
    drop_refused = args.audit == "drop"
    rows = outcome.render_comparisons(data["train"], renderer, drop_refused=drop_refused)
    log(f"rendered: {listed(rows.counts)}; longest allowed {renderer.max_length} tokens, {listed(renderer.counts)}")
    losses.warn_of(renderer, only=losses.OF_TEXTS)
    if rows.counts["dropped_over_length"]:
        left = f"{rows.counts['dropped_over_length']} of {rows.counts['pairs']} pairs are left out"
        warn(f"{left}: over {renderer.max_length} tokens, with --overlong {args.overlong}")
    if 10 * rows.counts["truncated_sides"] > rows.counts["pairs_used"] * 2:
        cut = f"{rows.counts['truncated_sides']} of {2 * rows.counts['pairs_used']} sides are cut to {renderer.max_length} tokens"
        warn(f"{cut}, by --overlong {args.overlong}: what is cut is not learned")
    eval_rows = None
    if data["eval"]:
        eval_rows = outcome.render_comparisons(
            data["eval"], renderer, called="held-out pair", drop_refused=drop_refused
        )
        data["eval"] = eval_rows.pairs if drop_refused else data["eval"]
    counts = rows.counts | {"pairs_held_out": len(data["eval"])}
    config, reason = trainer_config(args, fields, loaded.model.num_parameters(), bool(eval_rows))
    log(f"settings for {reason}: {listed(runs.config_summary(config, fields))}")
    result = {
        "output_dir": str(output_dir),
        "head": loaded.head,
        "format": data["format"],
        "counts": counts,
        "audit": data["findings"],
        "set_aside": data["set_aside"],
        "left_out": data["left_out"] + rows.counts.get("dropped_refused", 0),
    }
    peft_config = runs.lora_from_arguments(args, "SEQ_CLS", checkpoints.head_name(loaded.model))
    if args.dry_run:
        settings = runs.planned(args, config, fields, renderer, len(rows.dataset), peft_config)
        loss = {"center_rewards_coefficient": args.center_rewards_coefficient, "label_smoothing": args.label_smoothing}
        return {**result, "dry_run": True, "settings": settings | loss}

    model, training = outcome.fit(
        loaded.model,
        renderer,
        rows,
        config,
        head=loaded.head,
        eval_rows=eval_rows,
        peft_config=peft_config,
        label_smoothing=args.label_smoothing,
        resume=resume,
        shared_prefix=args.shared_prefix,
    )
    if config.process_index != 0:
        return None
    reward_model = RewardModel(model.eval(), renderer)
    evaluation = evaluate_pairs(reward_model, data["eval"]) if data["eval"] else None
    reward = reward_statistics(reward_model, evaluation, rows.pairs)
    loss = {
        "center_rewards_coefficient": args.center_rewards_coefficient,
        "label_smoothing": args.label_smoothing,
        "margin": args.use_margin,
    }
    training |= {"head": loaded.head, "counts": counts}
    saved = runs.conclude(
        args, model, renderer, training, loss=loss, reward=reward, evaluation=evaluation and evaluation.summary
    )
    return {**result, "resumed_from": resume, **saved}


def read_data(args) -> dict:
    """Comparisons to train and to evaluate on, audited. Raises DataError on errors in the data, unless told otherwise."""
    from reward_modeling.data.audit import audit, unreadable, without_errors
    from reward_modeling.data.reading import check_verbatim, load
    from reward_modeling.data.records import comparisons, split_by_prompt

    reading = {"config": args.dataset_config, "format": args.format, "columns": args.columns}
    reading["winner_values"] = args.winner_values
    split = args.dataset_train_split
    records = load(args.dataset_name, split=split, leave_out_unreadable=args.audit == "drop", **reading)
    rendered = args.text_format == "rendered"
    if rendered:
        check_verbatim(records)
    train, held_out = comparisons(records), []
    if args.eval_dataset_name or args.dataset_test_split:
        held_out = comparisons(
            load(args.eval_dataset_name or args.dataset_name, split=args.dataset_test_split or "test", **reading)
        )
    findings, read = [*unreadable(records), *audit(train, eval_records=held_out or None, rendered=rendered)], len(train)
    train = without_errors(train, findings, args.audit, "pairs")
    left_out = read - len(train)
    if not args.use_margin:
        from dataclasses import replace

        train = [replace(pair, margin=None) for pair in train]
    if args.val_set_size and not held_out:  # after the audit, which looks at the held-out pairs too
        train, held_out = split_by_prompt(train, args.val_set_size, args.seed)
    if not train or (args.val_set_size and not held_out):
        raise DataError(
            f"{len(train)} pairs to train on and {len(held_out)} to evaluate on are too few",
            hint="change --val_set_size or add data",
        )
    return {
        "train": train,
        "eval": held_out,
        "format": records.format,
        "set_aside": records.set_aside,
        "left_out": left_out,
        "findings": [finding.to_dict() for finding in findings],
    }


def trainer_fields(args) -> dict:
    """The fields of trl.RewardConfig that were given by their own names. Raises UsageError for a value that it refuses."""
    if not args.trainer_arguments:
        return {}
    from trl import RewardConfig

    fields = flags.parse_trainer_fields(RewardConfig, args.trainer_arguments, "train.py")
    trainer_config(args, fields, 0, flags.has_evaluation(args))  # what it refuses is refused before data is read
    return fields


def trainer_config(args, fields: dict, parameters: int, has_eval: bool):
    """The trl.RewardConfig of this run, and the reason for its defaults."""
    from trl import RewardConfig

    from reward_modeling.training.runs import trainer_config

    own = {"center_rewards_coefficient": args.center_rewards_coefficient or None, "max_length": None}
    return trainer_config(RewardConfig, args, fields, parameters, has_eval=has_eval, **own)


if __name__ == "__main__":
    main_guard(main)
