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
#     "matplotlib>=3.10,<4",
# ]
# ///
"""Optimise a policy against a reward model with TRL's GRPO or RLOO: no value model, several answers to each prompt.

    uv run scripts/grpo.py --model_name_or_path runs/sft --reward_model_path runs/rm --dataset_name prompts.jsonl --output_dir runs/grpo
    uv run scripts/grpo.py --algorithm rloo --reward_model_path runs/a runs/b --reward_weights 0.7 0.3 --config grpo.yaml
    uv run scripts/grpo.py --config grpo.yaml --beta 0.1 --num_generations 16 --use_peft

Reads   prompts as text or messages; of comparisons and rankings, their prompts (references/data.md)
Writes  OUT/ a plain Hugging Face causal language model, OUT/grpo.json, OUT/log.jsonl, OUT/run.svg, OUT/checkpoint-*
Method  GRPO arXiv:2402.03300, RLOO arXiv:2402.14740, by trl.GRPOTrainer and trl.RLOOTrainer. Which one, and what to
        watch: references/reinforcement-learning.md

Any other field of trl.GRPOConfig or trl.RLOOConfig is accepted by its own name: --beta 0.1 --num_generations 8
--max_completion_length 256 --learning_rate 1e-6 --max_steps 200 --report_to tensorboard
"""

from __future__ import annotations

from reward_modeling import arguments as flags
from reward_modeling.console import UsageError, log, main_guard

ALGORITHMS = ("grpo", "rloo")


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="grpo.py")
    model = parser.add_argument_group("policy")
    model.add_argument("--algorithm", choices=ALGORITHMS, default="grpo", help="(grpo)")
    model.add_argument(
        "--model_name_or_path", metavar="MODEL", help="folder or hub id of the policy to start from, also the reference"
    )
    model.add_argument(
        "--chat_template_path", metavar="PATH", help="a .jinja file, or a model whose chat template to use"
    )
    model.add_argument("--stop_token_id", type=int, metavar="ID", help="the one token that ends an answer")
    reward = flags.add_reward_arguments(parser)
    reward.add_argument(
        "--missing_eos_penalty",
        type=flags.non_negative_number,
        default=1.0,
        help="taken from the reward of an answer that did not end (1)",
    )
    data = flags.add_dataset_arguments(parser, split_default="train")
    data.add_argument(
        "--max_prompt_length",
        type=flags.positive_int,
        metavar="TOKENS",
        help="longest rendered prompt (what the policy's context leaves beside --max_completion_length)",
    )
    data.add_argument(
        "--overlong", choices=("error", "drop"), default="error", help="what to do with longer prompts (error)"
    )
    run = flags.add_run_arguments(parser)
    run.add_argument("--seed", type=int, default=42, help="of prompts, answers and adapters (42)")
    flags.add_lora_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> dict | None:
    required = ("model_name_or_path", "reward_model_path", "dataset_name", "output_dir")
    args = flags.parse(parser(), argv, required=required, trainer_fields=flags.POLICY_TRAINER_FIELD_SOURCES)
    flags.check_lora_arguments(args)

    from reward_modeling import checkpoints, output_folder

    output_dir = output_folder.claim(
        args.output_dir,
        overwrite=args.overwrite_output_dir,
        resuming=bool(args.resume_from_checkpoint),
        dry_run=args.dry_run,
        inputs=(args.model_name_or_path, *args.reward_model_path, *args.dataset_name),
    )
    from reward_modeling.ensemble import Rewards
    from reward_modeling.training import policy as policies
    from reward_modeling.training import resuming, runs

    resume = resuming.resume_point(args.resume_from_checkpoint, args.output_dir)
    for path in args.reward_model_path:
        checkpoints.check_reward_model(path)
    records = None if args.trainer_arguments else policies.read_prompts(args, args.dataset_split)

    from reward_modeling.training import grpo  # here: trl takes seconds to import

    fields = flags.parse_trainer_fields(grpo.ALGORITHMS[args.algorithm].config, args.trainer_arguments, "grpo.py")
    if records is None:  # what the trainer refuses is refused before data is read
        grpo.make_config(args.algorithm, args.output_dir, fields, seed=args.seed, lora=args.use_peft, parameters=0)
        records = policies.read_prompts(args, args.dataset_split)
    policy = policies.Policy.from_pretrained(
        args.model_name_or_path,
        chat_template_path=args.chat_template_path,
        stop_token_id=args.stop_token_id,
        device="cpu",
    )
    limit, default = "--max_completion_length", grpo.ALGORITHMS[args.algorithm].config.max_completion_length
    fields["max_completion_length"] = policies.new_tokens(policy, fields.get("max_completion_length"), default, limit)
    config, notes = grpo.make_config(
        args.algorithm,
        args.output_dir,
        fields,
        seed=args.seed,
        lora=args.use_peft,
        parameters=policy.model.num_parameters(),
    )
    for note in notes:
        log(f"setting: {note}")
    prompts = policies.render_prompts(
        records,
        policy,
        config.max_completion_length,
        longest=args.max_prompt_length,
        overlong=args.overlong,
        limit=limit,
    )
    refuse_tools(prompts)
    rewards = Rewards.from_arguments(args, device=str(config.device))
    peft_config = policies.lora_from_arguments(args)
    reward = grpo.RewardFunction(rewards, policy, args.missing_eos_penalty)
    trainer = grpo.make_trainer(args.algorithm, policy, prompts, reward, config, peft_config)
    grpo.log_start(trainer, prompts)
    result = {
        "output_dir": str(output_dir),
        "algorithm": args.algorithm,
        "policy": args.model_name_or_path,
        "reward_models": args.reward_model_path,
        "prompts": len(prompts),
        "settings": {name: getattr(config, name) for name in grpo.IDENTITY if hasattr(config, name)},
    }
    if args.dry_run:
        return {**result, "dry_run": True}
    identity = grpo.identity(args.algorithm, config, prompts, rewards, peft_config)
    resuming.start_run(output_dir, config.process_index, identity, resume)
    summary = grpo.train(trainer, policy, resume)
    if config.process_index != 0:
        return None
    summary.pop("log")
    summary |= grpo.summarise(trainer.state.log_history)
    rewards.warn_of_losses()
    summary = {**result, "resumed_from": resume, **summary, "reward_inputs_truncated": rewards.truncated}
    policies.save(policy, output_dir, summary, "grpo.json")
    log(f"saved: {output_dir}")
    runs.draw_run(output_dir / "run.svg", trainer.state.log_history, grpo.PANELS)
    return summary


def refuse_tools(prompts) -> None:
    """Raises UsageError for prompts with tools: TRL's trainers take one set of tools for all prompts."""
    if any(prompt.tools for prompt in prompts):
        raise UsageError(
            "the data has `tools`, which TRL's trainers cannot give to each prompt",
            hint="use ppo.py, or drop them with --columns tools=",
        )


if __name__ == "__main__":
    main_guard(main)
