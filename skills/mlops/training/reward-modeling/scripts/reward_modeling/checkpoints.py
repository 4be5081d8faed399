"""Load, save and verify a reward model.

A saved outcome reward model is a plain Hugging Face `*ForSequenceClassification` folder with one label and
`problem_type="regression"` (without it transformers' pipeline and vLLM squash the score), a process reward model a
`*ForTokenClassification` folder with two labels; both have a pad token of their own and their chat template. Beside the
weights lies `reward_model.json`, the model's card: the fingerprint of its rendering, how it was trained, the mean and
standard deviation of its rewards, and golden scores of a few fixed texts. `kinds` says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cards import CARD_VERSION, MERGE_TOLERANCE, RELOAD_TOLERANCE, check_golden, check_unchanged, read_card
from .chat_templates import DATE_NOTE, writes_the_date
from .console import ModelError, UsageError, UserError, to_json
from .kinds import GOLDEN_CONVERSATIONS as GOLDEN_CONVERSATIONS
from .kinds import KINDS, OUTCOME, PROCESS, Kind, golden_scores, kind_of_architecture
from .model_folder import CONFIG, check_config, check_folder, own_code, pickled_weights, read_json, snapshot
from .output_folder import CARD, staged
from .readers import Family, recognize
from .tokenizer_setup import prepare_tokenizer
from .vocabulary import check_embedded, check_tells_apart
from .weights import OTHER_HEAD, check_is_model, check_is_no_adapter_on_the_hub, check_loaded, check_size, explain

if TYPE_CHECKING:
    import torch

ADAPTER = "adapter"
# Words in what the hub's client says -> the next thing to try.
HUB_HINTS = {
    "gated repo": "accept the terms on the model's page, then log in with `hf auth login`",
    "problem_type=": 'set "problem_type": "regression" in its config.json: one label is a reward, not a class',
    "couldn't connect": "there is no folder of that name here, and no network; what is in the cache loads without it when HF_HUB_OFFLINE=1 is set",
}


@dataclass
class Loaded:
    """A model ready to be trained or asked: in fp32 unless told otherwise, with its renderer's tokenizer.

    head: "new" (drawn at random) or "loaded". card: the content of reward_model.json, or None for a foreign model.
    """

    model: Any
    tokenizer: Any
    head: str
    notes: list[str]
    card: dict[str, Any] | None = None


# ---- the head -----------------------------------------------------------------------------------------------------


def scored_at(model: Any) -> str:
    """Where this architecture reads the score: a decoder at the last token (of an answer, of a step's separator).

    An encoder reads the score of an answer from its pooled state, and that of a step from a row that ends with the step.
    """
    base = unwrapped(model)
    if kind_of_architecture(type(base).__name__) is PROCESS:
        return "prefix" if reads_ahead(base) else "last_token"
    return "last_token" if hasattr(base, "score") else "pooled"


def reads_ahead(model: Any) -> bool:
    """Whether a later token changes what the model makes of an earlier one. Asked of the model itself, by two passes.

    Class names do not tell: GPT-2's `classifier` looks like BERT's, and some encoders were made of decoders.
    """
    import torch

    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    with torch.inference_mode():
        rows = [torch.tensor([[1, 2, 1, last]], device=device) for last in (1, 2)]
        states = [
            getattr(model, model.base_model_prefix)(input_ids=row, attention_mask=torch.ones_like(row))[0][:, :-1]
            for row in rows
        ]
    model.train(was_training)
    return not torch.allclose(states[0].float(), states[1].float(), rtol=0.0, atol=1e-4)


def head_name(model: Any) -> str:
    """Name of the module that makes the score, as PEFT's `modules_to_save` wants it."""
    base = unwrapped(model)
    name = next((name for name in ("score", "classifier", "classification_head") if hasattr(base, name)), None)
    if name is None:
        raise ModelError(
            f"{type(base).__name__} has no score head this project knows",
            hint="use an AutoModelForSequenceClassification or AutoModelForTokenClassification architecture",
        )
    return name


def head_projection(model: Any) -> Any:
    """The last linear layer of the head, with one output for each label."""
    import torch

    base = unwrapped(model)
    modules = [module for module in getattr(base, head_name(model)).modules() if isinstance(module, torch.nn.Linear)]
    return [module for module in modules if module.out_features == base.config.num_labels][-1]


def keep_head_in_float32(model: Any) -> None:
    """Compute the score in fp32 whatever the rest runs in: bf16 leaves few distinct rewards, and so ties.

    The head's projection is cast to fp32, its input too, and autocast is switched off inside it.
    """
    import torch

    projection = head_projection(model).float()
    plain_forward = projection.forward

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return plain_forward(hidden.float())

    projection.forward = forward


def unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


# ---- loading ------------------------------------------------------------------------------------------------------


def load_for_training(
    path: str, *, chat_template_path: str | None = None, seed: int = 42, kind: Kind = OUTCOME
) -> Loaded:
    """A model with the head of this kind, in fp32, and a tokenizer that obeys the rendering rules.

    A trained reward head is kept; otherwise a head is drawn from N(0, 1/(d+1)) with this seed (Stiennon et al. 2020,
    arXiv:2009.01325, appendix B.1). Raises ModelError for a folder that is no model, and for a classifier with other
    labels or of the other kind, which would lose its head in silence.
    """
    import torch
    from transformers import set_seed

    if (family := recognize(path)) and family.head:
        raise ModelError(
            f"the head of {path} would be lost: training continues from one in `score.weight`, not from {family.how}",
            hint=f"start from the base model it was made of, or {OTHER_HEAD}; score.py and evaluate.py score it as it is",
        )
    config = read_config(path)
    found, labels = kind_of_architecture(architecture_of(config)), len(kind.labels)
    if found is kind and config.num_labels != labels:
        raise explain(path, config, kind) or ModelError(
            f"{path} is a classifier with {config.num_labels} labels; {kind.called} has {_in_words(labels)}",
            hint=f"start from the base model it was made of, or from a model with num_labels={labels}",
        )
    if found not in (None, kind):
        raise ModelError(
            f"{path} scores {found.scores} ({architecture_of(config)}); its head cannot become that of {kind.called}",
            hint=f"start from the base model it was made of, or train it further with {found.script}",
        )
    tokenizer = read_tokenizer(path)
    notes = prepare_tokenizer(tokenizer, read_chat_template(chat_template_path))
    set_seed(seed)
    model, missing, more = read_model(
        _auto_class(kind), path, scores=True, strict=False, num_labels=labels, dtype=torch.float32
    )
    notes += more
    trunk = f"{model.base_model_prefix}."
    lost = [key for key in missing if key.startswith(trunk) and ".pooler." not in key]
    if lost:
        raise ModelError(f"{path} lacks the weights of {len(lost)} layers, the first is {lost[0]}")
    head_is_new = bool(missing)
    if head_is_new:
        projection = head_projection(model)
        torch.nn.init.normal_(projection.weight, std=(projection.in_features + 1) ** -0.5)
        if projection.bias is not None:
            torch.nn.init.zeros_(projection.bias)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        notes.append(f"embeddings: grown to {len(tokenizer)} for the new pad token")
    _write_contract_into_config(model, tokenizer, kind)
    return Loaded(model, tokenizer, "new" if head_is_new else "loaded", notes)


def load(
    path: str, *, dtype: str = "float32", device: str | None = None, kind: Kind = OUTCOME, compare: bool = True
) -> Loaded:
    """A trained reward model, in eval mode on the best device there is.

    compare: its golden scores with those of its card. Raises ModelError when the folder is no reward model of this kind
    (another architecture, other labels, a head that was never saved, an adapter without its model), when it renders text
    otherwise than it did in training, and when it does not score as it did then.
    """
    import torch

    path, device = str(path), usable(device or best_device())
    config = _check_model(path, kind)
    tokenizer, notes = read_tokenizer(path), []
    card = read_card(path, expected=config.id2label == kind.labels)
    model, missing, more = read_model(_auto_class(kind), path, scores=True, strict=True, dtype=getattr(torch, dtype))
    notes += more
    if missing:
        raise explain(path, config, kind) or ModelError(
            f"{path} lacks the weights of {len(missing)} layers ({missing[0]}): its scores would be random",
            hint=f"train it with {kind.script}",
        )
    rows = model.get_input_embeddings().num_embeddings
    if card is None:
        check_embedded(path, tokenizer, rows)
        notes += _adopt_foreign_tokenizer(path, tokenizer, model, kind)
    tokenizer.padding_side = "right"
    model.eval().to(device)
    if dtype != "float32":
        keep_head_in_float32(model)
    if card is not None:
        renderer = kind.renderer(tokenizer, scored_at(model), card["rendering"])
        _check_fingerprint(path, card, renderer)
        check_embedded(path, tokenizer, rows)
        if compare:
            check_unchanged(path, card, model, renderer, dtype)
    return Loaded(model, tokenizer, "loaded", notes, card)


def load_process(path: str, *, dtype: str = "float32", device: str | None = None) -> Loaded:
    """`load` for a process reward model: two labels at every token, of which 1 is "correct"."""
    return load(path, dtype=dtype, device=device, kind=PROCESS)


def best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable(device: str) -> str:
    """The device, if a tensor can be put there. Raises UsageError otherwise."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cannot use --device {device}: {reason}", hint="leave it out to take the best there is"
        ) from error
    return device


def kind_of(path: str) -> Kind | None:
    """Which kind of reward model lies at this path, by its configuration alone; None for any other model.

    That of a folder is read without transformers: the kind decides how data is read, whose faults should show at once.
    """
    check_folder(path)
    if family := recognize(path):
        return KINDS[family.kind]
    if (Path(path) / CONFIG).is_file():
        return kind_of_architecture((read_json(Path(path) / CONFIG).get("architectures") or [""])[0])
    return kind_of_architecture(architecture_of(read_config(str(path))))


def check_reward_model(path: str) -> Any:
    """The configuration at this path. Raises ModelError when it is not that of an outcome reward model; reads no weights."""
    return _check_model(path, OUTCOME)


def check_process_model(path: str) -> Any:
    """The configuration at this path. Raises ModelError when it is not that of a process reward model; reads no weights."""
    return _check_model(path, PROCESS)


def _check_model(path: str, kind: Kind) -> Any:
    import transformers

    family = recognize(path)
    if family and family.head:
        return check_kind(path, family, kind)
    config = read_config(path)
    architecture, labels = architecture_of(config), len(kind.labels)
    found = kind_of_architecture(architecture)
    if found not in (None, kind):
        raise ModelError(f"{path} is {found.called} ({architecture}): it scores {found.scores}, not {kind.scores}")
    unknown = not hasattr(transformers, architecture)
    if (found is None or config.num_labels != labels or unknown) and (explained := explain(path, config, kind)):
        raise explained
    if found is None:
        raise ModelError(
            f"{path} is no reward model: its architecture is {architecture or 'not named'}, without a score head",
            hint=f"train one: {kind.script} --model_name_or_path {path} --dataset_name DATA",
        )
    if unknown:
        raise ModelError(
            f"{path} was saved by a class that transformers does not have ({architecture}): how it scores is not known",
            hint="score with the code of its authors, or train a reward model from its base",
        )
    if config.num_labels != labels:
        raise ModelError(
            f"{path} has {config.num_labels} labels; {kind.called} has {_in_words(labels)}",
            hint=f"use a model trained with num_labels={labels}",
        )
    return config


def check_kind(path: str, family: Family, kind: Kind) -> None:
    """Raises ModelError for a public model of another kind."""
    found = KINDS[family.kind]
    if found is not kind:
        raise ModelError(f"{path} is {found.called} ({family.called}): it scores {found.scores}, not {kind.scores}")


def _in_words(number: int) -> str:
    return {1: "one", 2: "two"}[number]


def _auto_class(kind: Kind) -> Any:
    import transformers

    return getattr(transformers, f"AutoModel{kind.architecture}")


def _adopt_foreign_tokenizer(path: str, tokenizer: Any, model: Any, kind: Kind) -> list[str]:
    """Run a reward model that came without a card as its author would have: its own pad token, its own pooling."""
    notes = [f"{path} has no {CARD}: how its text was rendered in training is not known, its own chat template is used"]
    if not tokenizer.chat_template:
        notes += prepare_tokenizer(tokenizer)
    elif writes_the_date(tokenizer):
        notes.append(DATE_NOTE)
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.pad_token is None or tokenizer.pad_token_id >= rows:
        why = "it was missing" if tokenizer.pad_token is None else "its own has no embedding"
        # Any token will do behind the mask; the last of the vocabulary is the least likely to end a text.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(len(tokenizer), rows) - 1)
        notes.append(f"pad token: {tokenizer.pad_token} ({why})")
    if model.config.get_text_config().pad_token_id is None:
        _write_contract_into_config(model, tokenizer, kind)
    return notes


def _check_fingerprint(path: str, card: dict[str, Any], renderer: Any) -> None:
    try:
        unchanged = renderer.fingerprint == card.get("fingerprint")
    except ModelError as error:  # of the template
        raise ModelError(error.message.replace("the model", path, 1), hint="restore the one saved with it") from error
    if unchanged:
        return
    was, now = card.get("rendering", {}), renderer.contract()
    changed = [key for key in now if was.get(key) != now[key]]
    raise ModelError(
        f"{path} renders text otherwise than it did in training: {', '.join(changed) or 'the fingerprint'} changed, so its scores would mean nothing",
        where=f"{path}/{CARD}",
        hint="restore the tokenizer and chat template that were saved with the model, and the transformers version that its card names",
    )


def _write_contract_into_config(model: Any, tokenizer: Any, kind: Kind) -> None:
    config = model.config
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    config.pad_token_id = tokenizer.pad_token_id
    config.problem_type = kind.problem_type
    config.id2label, config.label2id = dict(kind.labels), {label: number for number, label in kind.labels.items()}


def read_config(path: str) -> Any:
    """The config of a model folder or hub id. Raises ModelError where there is none, or where it is broken."""
    from transformers import AutoConfig

    check_folder(path)
    check_is_model(path)
    try:
        config = loaded_by(path, lambda: AutoConfig.from_pretrained(path, trust_remote_code=False))
    except ModelError as error:
        if any(words in error.message for words in ("does not appear to have a file named", "Unrecognized model")):
            check_is_no_adapter_on_the_hub(path)
        raise
    if not Path(path).is_dir() and (folder := snapshot(path)):
        check_config(read_json(folder / CONFIG), folder / CONFIG)
    _check_no_own_class(path, CONFIG, "architectures")
    return config


def read_tokenizer(path: str) -> Any:
    """The tokenizer of a model folder or hub id. Raises ModelError where it cannot be loaded, or lacks its vocabulary."""
    from transformers import AutoTokenizer

    check_folder(path)
    tokenizer = loaded_by(path, lambda: AutoTokenizer.from_pretrained(path, trust_remote_code=False))
    _check_no_own_class(path, "tokenizer_config.json", "tokenizer_class")
    check_tells_apart(path, tokenizer)
    return tokenizer


def read_model(
    auto_class: Any, path: str, *, scores: bool, strict: bool, dtype: Any, **labels: int
) -> tuple[Any, list[str], list[str]]:
    """(model, names of its weights that the files lack, notes), by a class of transformers itself and no other.

    scores, strict: as in `weights.check_loaded`. labels: `num_labels` over that of the config. Raises ModelError for weights
    that do not fit, and for a model that needs code of its own.
    """
    with QuietLoading():
        if Path(path).is_dir():
            loaded_by(path, lambda: check_size(path, auto_class, **labels))
        model, info = loaded_by(
            path,
            lambda: auto_class.from_pretrained(
                path,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=dtype,
                **labels,
            ),
        )
    notes = check_loaded(path, model, info, scores=scores, strict=strict)
    folder, files = snapshot(path), own_code(path)
    if files:
        notes.append(f"{', '.join(files)}: not run, the classes of transformers are used instead")
    if folder and (pickles := pickled_weights(folder)):
        notes.append(f"weights: {pickles[0]} is a pickle, of which only tensors are read; safetensors are safer")
    return model, sorted(info["missing_keys"]), notes


def _check_no_own_class(path: str, file: str, key: str) -> None:
    """Raises ModelError when `key` of this file names a class that transformers does not have, and code that has it."""
    import transformers

    folder = snapshot(path)
    if folder is None or not (folder / file).is_file():
        return
    config = read_json(folder / file)
    names = config.get(key) or []
    for name in filter(lambda name: isinstance(name, str), names if isinstance(names, list) else [names]):
        if config.get("auto_map") and not any(hasattr(transformers, str(n)) for n in (name, name.removesuffix("Fast"))):
            raise _own_code_error(path, f"{name} is not part of transformers")


def _own_code_error(path: str, why: str) -> ModelError:
    files = ", ".join(own_code(path)) or "a file of its repository"
    return ModelError(
        f"{path} needs code of its own ({files}), which is never run: {why}",
        hint="use a model whose classes are part of transformers",
    )


def loaded_by(path: str, load_it: Any) -> Any:
    """Run a `from_pretrained`, turning what it raises for a bad folder or an unknown id into ModelError."""
    try:
        return load_it()
    except UserError:
        raise
    except Exception as error:  # tokenizers and safetensors raise classes of their own, derived from Exception only
        if "No space left" in str(error) or "out of memory" in str(error).lower():
            raise
        if "trust_remote_code" in str(error):
            raise _own_code_error(path, "no class of transformers reads it") from error
        if "weights_only" in str(error) or "torch.load" in str(error):
            # Their text says how to switch the protection off.
            raise ModelError(
                f"cannot load {path}: a pickle among its files holds more than tensors, or is broken",
                hint="only tensors are read from a pickle: ask its authors for safetensors",
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        absent = "" if Path(path).exists() else ", and there is no such folder here"
        for words, hint in HUB_HINTS.items():
            if words in reason:
                raise ModelError(f"cannot load {path}: {reason}", hint=hint) from error
        raise ModelError(
            f"cannot load {path}: {reason}{absent}",
            hint="give a folder with config.json, weights and a tokenizer, or a hub id",
        ) from error


def architecture_of(config: Any) -> str:
    """The name of the class that a config was saved with, or an empty one."""
    return (config.architectures or [""])[0]


def read_chat_template(path: str | None) -> str | None:
    """The template in a .jinja file, or that of the tokenizer in a folder or on the hub."""
    if path is None:
        return None
    if path.endswith((".jinja", ".j2")):
        try:
            if Path(path).exists() and not Path(path).is_file():
                raise UsageError(f"the chat template {path} is not a regular file")
            return Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the chat template {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"the chat template {path} is not UTF-8 text") from error
    template = read_tokenizer(path).chat_template
    if not template:
        raise ModelError(
            f"the tokenizer of {path} has no chat template", hint="name a model that has one, or a .jinja file"
        )
    return template


class QuietLoading:
    """transformers reports a new head as a defect and an unused language-model head as another; both are meant."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.logging, self.verbosity = logging, logging.get_verbosity()
        logging.set_verbosity_error()

    def __exit__(self, *exc: Any) -> None:
        self.logging.set_verbosity(self.verbosity)


# ---- saving -------------------------------------------------------------------------------------------------------


def save(
    model: Any, renderer: Any, output_dir: str | Path, *, training: dict[str, Any], reward: dict[str, float]
) -> dict[str, Any]:
    """Save a reward model, reload it, compare, and only then let it appear in `output_dir`. Returns its card.

    model: in memory; a PEFT model is merged first, its adapter kept in the folder `adapter`. renderer: a `Renderer`, or
    a `StepRenderer` for a process reward model. training: any JSON summary. reward: {"mean", "std", "n"} over held-out
    answers or steps. Of what is in the folder, only a model saved before is replaced (`output_folder.staged`).
    Raises RunError when the reloaded model does not give the golden scores of the one in memory.
    """
    kind = kind_of_architecture(type(unwrapped(model)).__name__)
    golden, tolerance = golden_scores(model, renderer), RELOAD_TOLERANCE
    device = next(model.parameters()).device
    with staged(output_dir) as folder:
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(folder / ADAPTER)
            model, tolerance = model.merge_and_unload(), MERGE_TOLERANCE
        _write_contract_into_config(model, renderer.tokenizer, kind)
        model.save_pretrained(folder)
        renderer.tokenizer.save_pretrained(folder)
        card = _card(kind, renderer, training, reward, golden)
        (folder / CARD).write_text(to_json(card, indent=2) + "\n", encoding="utf-8")
        model.to("cpu")
        (folder / "README.md").write_text(_readme(kind, card), encoding="utf-8")
        card["reload_difference"] = _verify(folder, kind, golden, tolerance, str(device))
        (folder / CARD).write_text(to_json(card, indent=2) + "\n", encoding="utf-8")
    return card


def _card(kind: Kind, renderer: Any, training: dict, reward: dict, golden: list) -> dict[str, Any]:
    import torch
    import transformers

    rendering = {**renderer.contract(), "max_length": renderer.max_length, "overlong": renderer.overlong}
    return {
        "card_version": CARD_VERSION,
        "kind": kind.name,
        "fingerprint": renderer.fingerprint,
        "rendering": rendering,
        "reward": reward,
        "golden": [{**example, "score": score} for example, score in zip(kind.golden, golden, strict=True)],
        "training": training,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _readme(kind: Kind, card: dict[str, Any]) -> str:
    """The model's page on the hub: what it is and how its score is read by other tools."""
    base = card["training"].get("base_model")
    front = ["library_name: transformers", *kind.front]
    if base and not Path(base).exists():
        front.append(f"base_model: {base}")
    text = kind.readme.format(**card["rendering"])
    if card["rendering"].get("text_format") == "rendered":
        text += "\nIts texts were rendered before training: give it prompt and answer as one such text, without any chat template.\n"
    return "\n".join(["---", *front, "---", "", text])


def _verify(folder: Path, kind: Kind, golden: list, tolerance: float, device: str) -> float:
    """The largest difference between the golden scores and those of the model as loaded from `folder`."""
    loaded = load(str(folder), device=device, kind=kind, compare=False)
    renderer = kind.renderer(loaded.tokenizer, scored_at(loaded.model), loaded.card["rendering"])
    return check_golden(golden_scores(loaded.model, renderer), golden, tolerance)
