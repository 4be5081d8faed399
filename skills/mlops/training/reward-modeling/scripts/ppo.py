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
"""Optimise a policy against a reward model by PPO, the classic RLHF way, with a penalty for leaving the start behind.

    uv run scripts/ppo.py --model_name_or_path runs/sft --reward_model_path runs/rm --dataset_name prompts.jsonl --output_dir runs/ppo
    uv run scripts/ppo.py --config ppo.yaml --use_peft --learning_rate 3e-5
    uv run --with-requirements scripts/ppo.py torchrun --nproc_per_node 2 scripts/ppo.py --config ppo.yaml

Reads   prompts as text or messages; of comparisons and rankings, their prompts (references/data.md)
Writes  OUT/ a plain Hugging Face causal language model, OUT/ppo.json, OUT/log.jsonl, OUT/run.svg, OUT/checkpoint-*
Method  arXiv:1707.06347 with the per-token KL penalty of arXiv:1909.08593. What to watch: references/reinforcement-learning.md

The flags of TRL's PPO script and PPOConfig keep their names; defaults in parentheses. A rollout is
per_device_train_batch_size x gradient_accumulation_steps x processes answers, split into num_mini_batches optimizer steps.
"""

from __future__ import annotations

from reward_modeling import arguments as flags
from reward_modeling.console import UsageError, log, main_guard

RESPONSE_LENGTH = 53
VALUE_MODELS = ("policy", "reward", "shared")


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="ppo.py")
    model = parser.add_argument_group("policy")
    model.add_argument(
        "--model_name_or_path", metavar="MODEL", help="folder or hub id of the policy to start from, also the reference"
    )
    model.add_argument("--sft_model_path", metavar="MODEL", help="the same by its old name; goes before the other")
    model.add_argument(
        "--chat_template_path", metavar="PATH", help="a .jinja file, or a model whose chat template to use"
    )
    model.add_argument(
        "--value_model",
        default="policy",
        metavar="MODEL",
        help="what the value model is made of: policy (a copy, with a head of zeros), reward, shared (a head on the policy "
        "itself) or a path; all but policy and shared need the policy's tokenizer (policy)",
    )
    model.add_argument("--stop_token", choices=("eos",), default="eos", help="answers end at their end token (eos)")
    model.add_argument("--stop_token_id", type=int, metavar="ID", help="the one token that ends an answer, instead")
    flags.add_reward_arguments(parser)
    data = flags.add_dataset_arguments(parser, training=True)
    data.add_argument(
        "--max_prompt_length",
        type=flags.positive_int,
        metavar="TOKENS",
        help="longest rendered prompt (what the policy's context leaves beside --response_length)",
    )
    data.add_argument(
        "--overlong", choices=("error", "drop"), default="error", help="what to do with longer prompts (error)"
    )
    _add_run_arguments(parser)
    _add_algorithm_arguments(parser)
    flags.add_lora_arguments(parser)
    return parser


def _add_run_arguments(parser: flags.Parser) -> None:
    run = flags.add_run_arguments(parser)
    run.add_argument(
        "--total_episodes", type=flags.positive_int, metavar="N", help="answers in all (num_train_epochs x prompts)"
    )
    run.add_argument(
        "--num_train_epochs", type=flags.positive_number, default=3, help="passes over the prompts, instead (3)"
    )
    run.add_argument(
        "--per_device_train_batch_size", type=flags.positive_int, default=8, help="answers in one forward pass (8)"
    )
    run.add_argument("--gradient_accumulation_steps", type=flags.positive_int, default=1, help="(1)")
    run.add_argument(
        "--local_rollout_forward_batch_size", type=flags.positive_int, default=64, help="answers written together (64)"
    )
    run.add_argument("--gradient_checkpointing", type=flags.boolean, nargs="?", const=True, default=False, help="(off)")
    run.add_argument(
        "--bf16", type=flags.boolean, nargs="?", const=True, help="bfloat16 autocast (on a GPU that has it)"
    )
    run.add_argument("--seed", type=int, default=42, help="of prompts, answers and batches (42)")
    run.add_argument("--save_steps", type=flags.positive_int, default=50, help="updates between checkpoints (50)")
    run.add_argument("--save_total_limit", type=flags.positive_int, default=2, help="checkpoints kept (2)")
    run.add_argument("--logging_steps", type=flags.positive_int, default=10, help="updates between lines here (10)")
    run.add_argument(
        "--num_sample_generations", type=int, default=10, help="updates whose first answers are logged in full (10)"
    )
    run.add_argument("--report_to", nargs="+", default=["none"], help="tensorboard, wandb, ... beside OUT/log.jsonl")


def _add_algorithm_arguments(parser: flags.Parser) -> None:
    number, positive = flags.non_negative_number, flags.positive_number
    ppo = parser.add_argument_group("PPO")
    ppo.add_argument(
        "--learning_rate", type=positive, default=3e-6, help="of the policy (3e-6; LoRA wants about ten times that)"
    )
    ppo.add_argument("--value_learning_rate", type=positive, help="of the value model (that of the policy)")
    ppo.add_argument(
        "--lr_scheduler_type",
        default="linear",
        choices=("linear", "cosine", "constant", "constant_with_warmup"),
        help="(linear)",
    )
    ppo.add_argument("--warmup_steps", type=int, default=0, help="updates (0)")
    ppo.add_argument("--weight_decay", type=number, default=0.0, help="(0)")
    ppo.add_argument("--max_grad_norm", type=positive, default=1.0, help="of policy and value model each (1)")
    ppo.add_argument(
        "--response_length",
        type=flags.positive_int,
        metavar="TOKENS",
        help=f"longest answer ({RESPONSE_LENGTH}, or half of what the policy reads)",
    )
    ppo.add_argument("--temperature", type=positive, default=0.7, help="of sampling and of all probabilities (0.7)")
    ppo.add_argument("--num_ppo_epochs", type=flags.positive_int, default=4, help="passes over each rollout (4)")
    ppo.add_argument("--num_mini_batches", type=flags.positive_int, default=1, help="optimizer steps a pass (1)")
    ppo.add_argument("--kl_coef", type=number, default=0.05, help="price of a nat of KL to the reference (0.05)")
    ppo.add_argument(
        "--kl_estimator",
        choices=("k1", "k3"),
        default="k1",
        help="per token; k3 pulls weakly when used as a penalty (k1)",
    )
    ppo.add_argument("--target_kl", type=positive, metavar="KL", help="adapt kl_coef towards this KL, nats per answer")
    ppo.add_argument("--max_kl", type=positive, metavar="KL", help="stop the run once the KL per answer is above this")
    ppo.add_argument(
        "--warn_kl", type=positive, default=10.0, metavar="KL", help="call the reward over-optimised above (10)"
    )
    ppo.add_argument("--cliprange", type=positive, default=0.2, help="of the ratio of new to old probability (0.2)")
    ppo.add_argument("--cliprange_value", type=positive, default=0.2, help="of the change of a value (0.2)")
    ppo.add_argument("--vf_coef", type=number, default=0.1, help="weight of the value loss (0.1)")
    ppo.add_argument("--gamma", type=number, default=1.0, help="discount (1)")
    ppo.add_argument("--lam", type=number, default=0.95, help="lambda of GAE (0.95)")
    flags.add_flag(ppo, "--whiten_rewards", "divide the token rewards of a rollout by their standard deviation")
    flags.add_flag(ppo, "--whiten_advantages", "make their mean 0 and standard deviation 1 (on)", default=True)
    ppo.add_argument(
        "--missing_eos_penalty",
        type=number,
        default=1.0,
        help="taken from the reward of an answer that did not end (1)",
    )


def main(argv: list[str] | None = None) -> dict | None:
    args = flags.parse(parser(), argv, required=("reward_model_path", "dataset_name", "output_dir"))
    path = check_arguments(args)

    from accelerate import Accelerator

    from reward_modeling import checkpoints, output_folder
    from reward_modeling.ensemble import Rewards
    from reward_modeling.training import policy as policies
    from reward_modeling.training import ppo, resuming, runs

    output_dir = output_folder.claim(
        args.output_dir,
        overwrite=args.overwrite_output_dir,
        resuming=bool(args.resume_from_checkpoint),
        dry_run=args.dry_run,
        inputs=(path, *{args.value_model}.difference(VALUE_MODELS), *args.reward_model_path, *args.dataset_name),
    )
    resume = resuming.resume_point(args.resume_from_checkpoint, args.output_dir)
    for reward_model in args.reward_model_path:
        checkpoints.check_reward_model(reward_model)
    accelerator = make_accelerator(Accelerator, args)
    records = policies.read_prompts(args, args.dataset_train_split)
    policy = policies.Policy.from_pretrained(
        path,
        chat_template_path=args.chat_template_path,
        stop_token_id=args.stop_token_id,
        device=str(accelerator.device),
    )
    limit = "--response_length"
    args.response_length = policies.new_tokens(policy, args.response_length, RESPONSE_LENGTH, limit)
    prompts = policies.render_prompts(
        records, policy, args.response_length, longest=args.max_prompt_length, overlong=args.overlong
    )
    settings = make_settings(args, len(prompts), ppo.Settings)
    rewards = Rewards.from_arguments(args, device=str(accelerator.device))
    value_model = args.reward_model_path[0] if args.value_model == "reward" else args.value_model
    actor = policies.actor_critic(policy, value_model, settings.temperature, policies.lora_from_arguments(args))
    if args.gradient_checkpointing:
        checkpoint_activations(actor)
    run = ppo.PPO(policy, actor, rewards, prompts, settings, accelerator, output_dir)
    log(
        f"{len(prompts)} prompts; {run.updates} updates of {run.batch_size} answers in {settings.num_ppo_epochs} passes of "
        f"{settings.num_mini_batches} steps; {accelerator.num_processes} process(es) on {accelerator.device}; "
        f"value model: {args.value_model}"
    )
    result = {
        "output_dir": str(output_dir),
        "prompts": len(prompts),
        "policy": path,
        "reward_models": args.reward_model_path,
    }
    if args.dry_run:
        return {**result, "dry_run": True, "updates": run.updates, "settings": vars(settings)}
    run.identify(resume, policy=path, rewards=args.reward_model_path, value_model=value_model)
    summary = run.run(
        resume,
        save_steps=args.save_steps,
        save_total_limit=args.save_total_limit,
        log_every=args.logging_steps,
        shown=args.num_sample_generations,
    )
    accelerator.end_training()
    if accelerator.process_index != 0:
        return None
    rewards.warn_of_losses()
    summary = {**result, "resumed_from": resume, **summary, "reward_inputs_truncated": rewards.truncated}
    policies.save(policy, output_dir, summary)
    log(f"saved: {output_dir}")
    runs.draw_run(output_dir / "run.svg", run.log.entries, ppo.PANELS)
    return summary


def check_arguments(args) -> str:
    """The path of the policy. Raises UsageError for flags that do not go together."""
    path = args.sft_model_path or args.model_name_or_path
    if path is None:
        raise UsageError("--model_name_or_path is required", hint="ppo.py --help shows an example")
    if args.sft_model_path and args.model_name_or_path not in (None, args.sft_model_path):
        log(f"policy: {path} (--sft_model_path); --model_name_or_path is not used")
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    if rows % args.num_mini_batches:
        raise UsageError(
            f"{rows} answers a process (per_device_train_batch_size x gradient_accumulation_steps) cannot be split into "
            f"{args.num_mini_batches} mini-batches",
            hint="make the product a multiple of --num_mini_batches",
        )
    flags.check_lora_arguments(args)
    if args.seed < 0:
        raise UsageError(f"--seed is a whole number of at least 0, got {args.seed}")
    return path


def make_accelerator(accelerator_class, args):
    """Device, precision, processes and trackers: fp32 on a CPU unless asked, bf16 autocast on a GPU that has it."""
    import warnings

    from reward_modeling.precision import precision

    warnings.filterwarnings("ignore", message="`log_with=")  # said below, in our words
    hardware = precision({"bf16": args.bf16})
    trackers = [] if args.report_to == ["none"] else args.report_to
    try:
        accelerator = accelerator_class(
            cpu=hardware["use_cpu"],
            mixed_precision="bf16" if hardware["bf16"] else "no",
            log_with=trackers or None,
            project_dir=args.output_dir,
        )
    except ValueError as error:
        raise UsageError(
            f"--report_to {' '.join(args.report_to)}: {error}", hint="install it, or leave the flag out"
        ) from error
    accelerator.init_trackers("ppo")
    return accelerator


def make_settings(args, prompts: int, settings_class):
    """The settings that the flags describe."""
    from dataclasses import fields

    given = {field.name: getattr(args, field.name) for field in fields(settings_class)}
    given["total_episodes"] = args.total_episodes or max(1, round(args.num_train_epochs * prompts))
    given["value_learning_rate"] = args.value_learning_rate or args.learning_rate
    return settings_class(**given)


def checkpoint_activations(actor) -> None:
    """Keep fewer activations, and compute them again going backward."""
    for model in filter(None, (actor.policy, actor.trunk)):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


if __name__ == "__main__":
    main_guard(main)
