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
"""Train a process reward model: after each step of a solution, how likely the step is correct.

    uv run scripts/train_process.py --model_name_or_path Qwen/Qwen2.5-3B --dataset_name trl-lib/math_shepherd --output_dir runs/prm
    uv run scripts/train_process.py --model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name steps.jsonl --output_dir runs/mine --val_set_size 0.1
    uv run scripts/train_process.py --model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name steps.jsonl --output_dir runs/mine --dry_run --show_labels 3

Reads   solutions with labelled steps in any stepwise format of references/process.md
Writes  OUT/ a plain Hugging Face token classifier with reward_model.json beside it, OUT/run.json, OUT/checkpoint-*
Method  cross-entropy at the last token of the separator behind each step, arXiv:2305.20050, arXiv:2312.08935.
        The saved model is reloaded and compared before it appears in OUT.

Any other field of transformers.TrainingArguments is accepted by its own name: --weight_decay 0.01 --logging_steps 5
"""

from __future__ import annotations

from reward_modeling import arguments as flags
from reward_modeling.console import DataError, listed, log, main_guard
from reward_modeling.step_rendering import STEPS_OVERLONG


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="train_process.py")
    model = flags.add_base_model_arguments(
        parser, STEPS_OVERLONG, "drop_steps", "leave out the last steps, keep prompt and first steps whole"
    )
    model.add_argument(
        "--step_separator",
        type=flags.escaped,
        metavar="TEXT",
        help=r"stands behind each step; its last token is scored (\n, or the SEP token where \n is no token)",
    )
    flags.add_training_data_arguments(parser, held_out="solutions", stepwise=True)
    run = flags.add_run_arguments(parser)
    run.add_argument(
        "--show_labels",
        type=flags.positive_int,
        metavar="N",
        help="decode the first N rows at every labelled token, before training",
    )
    loss = parser.add_argument_group("loss")
    loss.add_argument(
        "--class_weighting",
        choices=("none", "balanced"),
        default="none",
        help="balanced: incorrect steps weigh as much as correct ones together (none)",
    )
    flags.add_flag(loss, "--train_on_last_step_only", "use the last label of each solution alone")
    loss.add_argument(
        "--steps_per_solution",
        type=flags.positive_int,
        metavar="N",
        help="use at most N labels of each solution, drawn at random; an encoder computes a row for each (all)",
    )
    flags.add_flag(loss, "--disable_dropout", "switch every dropout of the model off", default=True)
    flags.add_lora_arguments(parser)
    flags.add_size_arguments(parser, rows="ROWS")
    return parser


def main(argv: list[str] | None = None) -> dict | None:
    args = flags.parse(
        parser(),
        argv,
        required=("model_name_or_path", "dataset_name", "output_dir"),
        trainer_fields=(flags.TRAINING_ARGUMENTS,),
    )
    from reward_modeling import checkpoints, output_folder
    from reward_modeling.kinds import PROCESS

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
    from reward_modeling.lengths import longest_input
    from reward_modeling.step_rendering import StepRenderer, default_separator
    from reward_modeling.training import process, resuming, runs

    resume = resuming.resume_point(args.resume_from_checkpoint, args.output_dir)
    loaded = checkpoints.load_for_training(
        args.model_name_or_path, chat_template_path=args.chat_template_path, seed=args.seed, kind=PROCESS
    )
    for note in [f"head: {loaded.head}", *loaded.notes]:
        log(note)
    renderer = StepRenderer(
        loaded.tokenizer,
        max_length=longest_input(loaded.model, loaded.tokenizer, args.max_length),
        overlong=args.overlong,
        scored_at=checkpoints.scored_at(loaded.model),
        step_separator=args.step_separator or default_separator(loaded.tokenizer),
        text_format=args.text_format or "chat",
    )
    data = audited(args, data, renderer.step_separator)
    drawing = {
        "last_step_only": args.train_on_last_step_only,
        "steps_per_solution": args.steps_per_solution,
        "seed": args.seed,
    }
    refusing = {"drop_refused": args.audit == "drop"}
    rows = process.render_solutions(data["train"], renderer, **drawing, **refusing)
    log(
        f"rendered: {listed(rows.counts)}; longest allowed {renderer.max_length} tokens, "
        f"separator {renderer.step_separator!r}, {ROWS_OF[renderer.scored_at]}"
    )
    losses.warn_of(renderer, only=losses.OF_TEXTS)
    eval_rows = process.render_solutions(data["eval"], renderer, **refusing) if data["eval"] else None
    if eval_rows and args.audit == "drop":
        data["eval"] = eval_rows.solutions
    counts = rows.counts | {"solutions_held_out": len(data["eval"])}
    config, reason = trainer_config(args, fields, loaded.model.num_parameters(), bool(eval_rows))
    log(f"settings for {reason}: {listed(runs.config_summary(config, fields))}")
    result = {
        "output_dir": str(output_dir),
        "head": loaded.head,
        "format": data["format"],
        "step_separator": renderer.step_separator,
        "counts": counts,
        "audit": data["findings"],
        "set_aside": data["set_aside"],
        "left_out": data["left_out"] + rows.counts.get("dropped_refused", 0),
    }
    if args.show_labels:
        result["labels_shown"] = process.show_labels(rows, loaded.tokenizer, args.show_labels)
    peft_config = runs.lora_from_arguments(args, "TOKEN_CLS", checkpoints.head_name(loaded.model))
    if args.dry_run:
        settings = runs.planned(args, config, fields, renderer, len(rows.dataset), peft_config)
        return {**result, "dry_run": True, "settings": settings | {"class_weighting": args.class_weighting}}

    model, training = process.fit(
        loaded.model,
        renderer,
        rows,
        config,
        head=loaded.head,
        eval_rows=eval_rows,
        peft_config=peft_config,
        class_weighting=args.class_weighting,
        disable_dropout=args.disable_dropout,
        resume=resume,
    )
    if config.process_index != 0:
        return None
    from reward_modeling.evaluation.steps import evaluate_steps
    from reward_modeling.process import ProcessRewardModel

    scorer = ProcessRewardModel(model.eval(), renderer)
    evaluation = evaluate_steps(scorer, data["eval"], threshold=0.5) if data["eval"] else None
    reward = process.step_statistics(scorer, evaluation, rows.solutions)
    loss = {
        "class_weighting": args.class_weighting,
        "train_on_last_step_only": args.train_on_last_step_only,
        "steps_per_solution": args.steps_per_solution,
    }
    training |= {"head": loaded.head, "counts": counts}
    saved = runs.conclude(
        args, model, renderer, training, loss=loss, reward=reward, evaluation=evaluation and evaluation.summary
    )
    return {**result, "resumed_from": resume, **saved}


ROWS_OF = {
    "last_token": "all steps of a solution in one row",
    "prefix": "one row for each step, since the model reads in both directions",
}


def read_data(args) -> dict:
    """Labelled solutions to train and to evaluate on."""
    from reward_modeling.data.audit import unreadable
    from reward_modeling.data.reading import check_verbatim, load
    from reward_modeling.data.records import Solution, solutions, split_by_prompt

    reading = {
        "config": args.dataset_config,
        "format": args.format,
        "columns": args.columns,
        "neutral": args.neutral,
    }
    split = args.dataset_train_split
    records = load(args.dataset_name, split=split, leave_out_unreadable=args.audit == "drop", **reading)
    if args.text_format == "rendered":
        check_verbatim(records)
    train, held_out = solutions(records), []
    unlabelled = sum(isinstance(row, Solution) for row in records.rows) - len(train)
    set_aside = records.set_aside | ({"without labels": unlabelled} if unlabelled else {})
    if args.eval_dataset_name or args.dataset_test_split:
        held_out = solutions(
            load(args.eval_dataset_name or args.dataset_name, split=args.dataset_test_split or "test", **reading)
        )
    elif args.val_set_size:
        train, held_out = split_by_prompt(train, args.val_set_size, args.seed)
        if not train or not held_out:
            raise DataError(
                f"{len(train)} solutions to train on and {len(held_out)} to evaluate on are too few",
                hint="change --val_set_size or add data",
            )
    lost = unreadable(records)
    return {"train": train, "eval": held_out, "format": records.format, "set_aside": set_aside, "findings": lost}


def audited(args, data: dict, separator: str) -> dict:
    """The data with its findings. Raises DataError on errors in the training data, unless told otherwise."""
    from reward_modeling.data.audit import audit, without_errors

    train = data["train"]
    looking = {"eval_records": data["eval"] or None, "rendered": args.text_format == "rendered"}
    findings = [*data["findings"], *audit(train, separator=separator, **looking)]
    kept = without_errors(train, findings, args.audit, "solutions")
    if not kept:
        raise DataError("no solution is left to train on", hint="mend the rows that the audit names")
    left_out = len(train) - len(kept)
    return {**data, "train": kept, "left_out": left_out, "findings": [finding.to_dict() for finding in findings]}


def trainer_fields(args) -> dict:
    """The fields of TrainingArguments that were given by their own names. Raises UsageError for a value that it refuses."""
    if not args.trainer_arguments:
        return {}
    from transformers import TrainingArguments

    fields = flags.parse_trainer_fields(TrainingArguments, args.trainer_arguments, "train_process.py")
    trainer_config(args, fields, 0, flags.has_evaluation(args))  # what it refuses is refused before data is read
    return fields


def trainer_config(args, fields: dict, parameters: int, has_eval: bool):
    """The TrainingArguments of this run, and the reason for its defaults."""
    from transformers import TrainingArguments

    from reward_modeling.training.runs import trainer_config

    return trainer_config(TrainingArguments, args, fields, parameters, has_eval=has_eval)


if __name__ == "__main__":
    main_guard(main)
