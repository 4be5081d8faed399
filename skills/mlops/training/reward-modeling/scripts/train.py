# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "torch>=2.13,<2.16",
#     "transformers>=5.23,<5.24",
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

    train.py --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name trl-lib/ultrafeedback_binarized --output_dir runs/uf
    train.py --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name pairs.jsonl --output_dir runs/mine --val_set_size 0.1
    train.py --config assets/recipes/qwen3.yaml --dataset_name pairs.jsonl --output_dir runs/q3

Reads   comparisons and rankings in any format of references/data.md
Writes  OUT/ a plain Hugging Face sequence classifier with reward_model.json beside it, OUT/run.json, OUT/checkpoint-*
Method  Bradley-Terry, arXiv:2203.02155 Eq. 1. The saved model is reloaded and compared before it appears in OUT.

Any other field of trl.RewardConfig is accepted by its own name: --weight_decay 0.01 --logging_steps 5 --report_to tensorboard
"""

from __future__ import annotations

import json
from pathlib import Path

from reward_modeling import arguments as flags
from reward_modeling.console import DataError, UsageError, log, main_guard, warn
from reward_modeling.rendering import OVERLONG

# Fields of trl.RewardConfig that would be ignored, or would break the rendering contract, and what to do instead.
NOT_A_CHOICE = {
    "remove_unused_columns": "leave it out: the rows carry columns of this project's own",
    "model_init_kwargs": "leave it out: the model is loaded in fp32, from safetensors, without remote code",
    "trust_remote_code": "leave it out: remote code is never run",
    "dataset_num_proc": "leave it out: the rows are rendered before the trainer sees them",
    "pad_token": "leave it out: a pad token is chosen, or added, so that it is not EOS",
    "eos_token": "give a template that ends answers with --chat_template_path",
    "pad_to_multiple_of": "leave it out: batches are padded to their longest row",
    "label_smoothing_factor": "use --label_smoothing",
}
EVALUATE_ON = "add --val_set_size 0.1 or --eval_dataset_name FILE"


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="train.py")
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model_name_or_path",
        metavar="MODEL",
        help="folder or hub id of a base, instruct or reward model; a trained reward head is kept",
    )
    group.add_argument(
        "--chat_template_path", metavar="PATH", help="a .jinja file, or a model whose chat template to use"
    )
    group.add_argument(
        "--max_length",
        type=flags.positive_int,
        metavar="TOKENS",
        help="longest rendered conversation (1024, or what the model can read)",
    )
    group.add_argument(
        "--overlong",
        choices=OVERLONG,
        default="truncate_prompt",
        help="what to do with longer ones; always counted (truncate_prompt: cut the start of the prompt, keep the answer)",
    )
    data = flags.add_dataset_arguments(parser, training=True)
    data.add_argument(
        "--eval_dataset_name", nargs="+", metavar="DATA", help="held-out comparisons, read as --dataset_name is"
    )
    data.add_argument(
        "--val_set_size",
        type=flags.fraction,
        default=0.0,
        metavar="SHARE",
        help="share of the prompts held out from training when there is no other evaluation data (0)",
    )
    data.add_argument(
        "--audit",
        choices=("stop", "drop", "warn"),
        default="stop",
        help="what to do with rows in which check_data.py finds errors (stop)",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", metavar="OUT", help="where the model goes")
    flags.add_flag(run, "--overwrite_output_dir", "replace a model that is there")
    run.add_argument(
        "--resume_from_checkpoint",
        nargs="?",
        const=True,
        metavar="CHECKPOINT",
        help="continue from this checkpoint, or from the newest complete one of --output_dir",
    )
    flags.add_flag(
        run, "--dry_run", "read, audit and render the data, load the model, show the settings; train nothing"
    )
    flags.add_flag(
        run,
        "--shared_prefix",
        "compute the beginning that both sides share once, where the model allows it",
        default=True,
    )
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
    lora = parser.add_argument_group("LoRA")
    flags.add_flag(
        lora,
        "--use_peft",
        "train a LoRA adapter and the head; merged into the model on saving, kept beside it in OUT/adapter",
    )
    lora.add_argument("--lora_r", type=flags.positive_int, metavar="R", help="rank (16)")
    lora.add_argument("--lora_alpha", type=flags.positive_int, metavar="A", help="scale (32)")
    lora.add_argument("--lora_dropout", type=flags.fraction, metavar="P", help="dropout (0.05)")
    lora.add_argument(
        "--lora_target_modules",
        nargs="+",
        metavar="NAME",
        help="layers that get an adapter (all-linear)",
    )
    defaults = parser.add_argument_group("chosen by model size unless given")
    defaults.add_argument(
        "--learning_rate",
        type=flags.positive_number,
        help="2e-5 below 1B, 1e-5 to 7B, 5e-6 above; ten times that with LoRA",
    )
    defaults.add_argument("--per_device_train_batch_size", type=flags.positive_int, metavar="PAIRS", help="8, 4, 2")
    defaults.add_argument("--num_train_epochs", type=flags.positive_number, help="2, 1, 1")
    defaults.add_argument(
        "--gradient_checkpointing",
        type=flags.boolean,
        nargs="?",
        const=True,
        metavar="BOOL",
        help="from 1B parameters on",
    )
    defaults.add_argument(
        "--bf16",
        type=flags.boolean,
        nargs="?",
        const=True,
        metavar="BOOL",
        help="bfloat16 autocast (on a GPU that has it)",
    )
    defaults.add_argument("--seed", type=int, default=42, help="of the head, the order and the split (42)")
    defaults.add_argument(
        "--eval_steps", type=flags.positive_number, help="evaluate every so many steps (once an epoch)"
    )
    return parser


def main(argv: list[str] | None = None) -> dict:
    args = flags.parse(
        parser(), argv, required=("model_name_or_path", "dataset_name", "output_dir"), trainer_fields=True
    )
    from reward_modeling import checkpoints

    lora_flags = [
        name for name in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules") if getattr(args, name)
    ]
    if lora_flags and not args.use_peft:
        raise UsageError(
            f"--{lora_flags[0]} does nothing without --use_peft", hint="add --use_peft for LoRA, or leave it out"
        )
    if args.eval_steps is not None and not (args.val_set_size or args.eval_dataset_name or args.dataset_test_split):
        raise UsageError("--eval_steps needs something to evaluate on", hint=EVALUATE_ON)
    output_dir = checkpoints.check_output_dir(
        args.output_dir, overwrite=args.overwrite_output_dir or args.dry_run, resuming=bool(args.resume_from_checkpoint)
    )
    data = read_data(args)
    fields = trainer_fields(args)

    from reward_modeling.evaluation.comparisons import judge, reward_statistics
    from reward_modeling.rendering import Renderer
    from reward_modeling.scoring import RewardModel, longest_input
    from reward_modeling.training import outcome

    resume = resume_point(args)
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
    )
    rows = outcome.render_comparisons(data["train"], renderer)
    log(f"rendered: {rows.counts}; longest allowed {renderer.max_length} tokens, {dict(renderer.counts)}")
    eval_rows = outcome.render_comparisons(data["eval"], renderer) if data["eval"] else None
    config, reason = trainer_config(args, fields, loaded.model, bool(eval_rows))
    log(f"settings for {reason}: {config_summary(config, fields)}")
    result = {
        "output_dir": str(output_dir),
        "head": loaded.head,
        "format": data["format"],
        "counts": rows.counts,
        "audit": data["findings"],
        "set_aside": data["set_aside"],
        "left_out": data["left_out"],
    }
    if args.dry_run:
        return {**result, "dry_run": True, "settings": config_summary(config, fields)}

    peft_config = None
    if args.use_peft:
        targets = args.lora_target_modules or ["all-linear"]
        peft_config = outcome.lora_config(
            checkpoints.head_name(loaded.model),
            r=args.lora_r or 16,
            alpha=args.lora_alpha or 32,
            dropout=0.05 if args.lora_dropout is None else args.lora_dropout,
            target_modules=targets[0] if targets == ["all-linear"] else targets,
        )
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
    evaluation = judge(reward_model, data["eval"]) if data["eval"] else None
    reward = reward_statistics(reward_model, evaluation, rows.pairs)
    training = {
        **training,
        "base_model": args.model_name_or_path,
        "dataset": args.dataset_name,
        "head": loaded.head,
        "counts": rows.counts,
        "loss": {
            "center_rewards_coefficient": args.center_rewards_coefficient,
            "label_smoothing": args.label_smoothing,
            "margin": args.use_margin,
        },
    }
    card = checkpoints.save(model, renderer, output_dir, training=training, reward=reward)
    log(f"saved and verified: {output_dir} (golden scores differ by {card['reload_difference']:.1e} after reloading)")
    training.pop("log")
    return {
        **result,
        "resumed_from": resume,
        "training": training,
        "evaluation": evaluation and evaluation.summary,
        "reward": reward,
        "fingerprint": card["fingerprint"],
        "reload_difference": card["reload_difference"],
    }


def read_data(args) -> dict:
    """Comparisons to train and to evaluate on, audited. Raises DataError on errors in the data, unless told otherwise."""
    from reward_modeling.audit import audit, drop, show
    from reward_modeling.records import comparisons, load
    from reward_modeling.training.splits import split_by_prompt

    reading = {"config": args.dataset_config, "format": args.format, "columns": args.columns}
    records = load(args.dataset_name, split=args.dataset_train_split, **reading)
    train, held_out = comparisons(records), []
    if args.eval_dataset_name or args.dataset_test_split:
        held_out = comparisons(
            load(args.eval_dataset_name or args.dataset_name, split=args.dataset_test_split or "test", **reading)
        )
    findings = audit(train, eval_records=held_out or None)
    show(findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors and args.audit == "stop":
        worst = errors[0]
        raise DataError(
            worst.message,
            where=", ".join(worst.rows),
            hint="mend these rows, leave them out with --audit drop, or look closer with check_data.py",
        )
    read = len(train)
    if errors and args.audit == "drop":
        train = drop(train, errors)
        warn(f"left out {read - len(train)} of {read} pairs with errors")
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
    """The fields of trl.RewardConfig that were given by their own names. Raises UsageError for a value of a wrong type."""
    for name in NOT_A_CHOICE:
        if any(token.partition("=")[0] == f"--{name}" for token in args.trainer_arguments):
            raise UsageError(f"--{name} is not for this script to pass on", hint=NOT_A_CHOICE[name])
    if not args.trainer_arguments:
        return {}
    from trl import RewardConfig

    return flags.parse_trainer_fields(RewardConfig, args.trainer_arguments, "train.py")


def trainer_config(args, fields: dict, model, has_eval: bool):
    """The trl.RewardConfig of this run: the user's fields over the defaults for this size and hardware, and their reason."""
    from trl import RewardConfig

    from reward_modeling.training import outcome

    own = ("learning_rate", "per_device_train_batch_size", "num_train_epochs", "gradient_checkpointing", "bf16")
    fields = fields | {name: getattr(args, name) for name in own if getattr(args, name) is not None}
    size, reason = outcome.default_arguments(model.num_parameters(), args.use_peft)
    precision = outcome.precision()
    if fields.get("bf16") or fields.get("fp16"):
        precision |= {"bf16": False, "fp16": False}
    evaluation = {"eval_strategy": "epoch"}
    if args.eval_steps is not None:
        evaluation = {"eval_strategy": "steps", "eval_steps": args.eval_steps}
    defaults = {
        **size,
        **precision,
        **(evaluation if has_eval else {}),
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "save_total_limit": 2,
        "max_grad_norm": 1.0,
    }
    defaults["per_device_eval_batch_size"] = 2 * (
        fields.get("per_device_train_batch_size") or size["per_device_train_batch_size"]
    )
    try:
        config = RewardConfig(
            output_dir=args.output_dir,
            seed=args.seed,
            center_rewards_coefficient=args.center_rewards_coefficient or None,
            max_length=None,
            remove_unused_columns=False,
            **{**defaults, **fields},
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"the trainer refuses these settings: {error}") from error
    if config.eval_strategy != "no" and not has_eval:
        raise UsageError("--eval_strategy needs something to evaluate on", hint=EVALUATE_ON)
    return config, reason


def config_summary(config, given: dict) -> dict:
    """The settings that matter most, and all that were given by their own names."""
    names = (
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_steps",
        "bf16",
        "fp16",
        "gradient_checkpointing",
        "lr_scheduler_type",
        "seed",
        *given,
    )
    values = {name: getattr(config, name) for name in names}
    return {name: getattr(value, "value", value) for name, value in values.items()}  # enumerations by their value


def resume_point(args) -> str | None:
    """The checkpoint to continue from. Raises UsageError when there is none."""
    from reward_modeling.training import outcome

    if not args.resume_from_checkpoint:
        return None
    if args.resume_from_checkpoint is True or args.resume_from_checkpoint in ("true", "True"):
        found = outcome.last_complete_checkpoint(args.output_dir)
        if found is None:
            raise UsageError(
                f"{args.output_dir} holds no complete checkpoint to resume from",
                hint="start without --resume_from_checkpoint, and set --save_steps below the number of steps",
            )
        refuse_finished(found, args.output_dir)
        return found
    if not outcome.is_complete_checkpoint(args.resume_from_checkpoint):
        raise UsageError(
            f"{args.resume_from_checkpoint} is no complete checkpoint",
            hint="--resume_from_checkpoint alone takes the newest complete one of --output_dir",
        )
    return args.resume_from_checkpoint


def refuse_finished(checkpoint: str, output_dir: str) -> None:
    """Raises UsageError when the run that wrote this checkpoint has reached its end and saved its model."""
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    if state["global_step"] >= state["max_steps"] and (Path(output_dir) / "reward_model.json").exists():
        raise UsageError(
            f"the run in {output_dir} is finished: its model was saved after {state['global_step']} steps",
            hint=f"to train it further, start from it: --model_name_or_path {output_dir} --output_dir NEW",
        )


if __name__ == "__main__":
    main_guard(main)
