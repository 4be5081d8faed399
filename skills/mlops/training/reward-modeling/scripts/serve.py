# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
#   "fastapi>=0.140,<0.166", "uvicorn>=0.40,<0.55", "prometheus-client>=0.23,<0.27",
# ]
# ///
"""Serve a reward model over HTTP: the rewards of score.py, for engines that ask a server (references/scaling.md).

    uv run scripts/serve.py --model_name_or_path runs/mine
    uv run scripts/serve.py --reward_model_path runs/helpful runs/harmless --reward_combine mean --normalize --port 0
    uv run scripts/serve.py --model_name_or_path runs/mine --host 10.0.0.5 --key_file key.txt

Routes  POST /v1/rewards {"prompt", "completions"} or {"rows": [...]}; /get_reward (OpenRLHF), /v1/score/evaluation
        (LLaMA-Factory); /classify, /pooling, /v1/embeddings, /score (vLLM, SGLang); /predict (TEI); /rerank (Cohere,
        Jina, vLLM, TEI); GET /ready, /v1/models, /metrics, /docs
Ends    at SIGTERM or Ctrl-C, after what was taken is answered, with counts as JSON and exit code 0
"""

from reward_modeling import cli
from reward_modeling.program import main_guard
from reward_modeling.results import Result


def parser() -> cli.Parser:
  # here, since some loaders leave it out: main_guard says so
  from reward_modeling.serving.settings import ServeSettings

  return cli.Parser(__doc__, "serve.py", ServeSettings)


def main(argv: list[str] | None = None) -> Result:
  from reward_modeling.serving.settings import ServeSettings

  settings = cli.settings(ServeSettings, parser().parse(argv))
  from reward_modeling.serving.server import serve

  return serve(settings)


if __name__ == "__main__":
  main_guard(main)
