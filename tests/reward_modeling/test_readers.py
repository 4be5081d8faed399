"""Public reward models: recognized, rendered and read as their authors do; the formula by hand in plain torch."""

import pytest
import torch
from public_models import ANSWER, EXAMPLES, QUESTION

from reward_modeling import RewardModel, readers
from reward_modeling.rendering import Conversation

ASKED = [(QUESTION, ANSWER), (QUESTION, "There are twelve apples."), ("hello world", "thank you")]


def turns(question, answer):
    return Conversation([{"role": "user", "content": question}], [{"role": "assistant", "content": answer}])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_public_model_gives_the_number_of_its_formula(name, tmp_path):
    example = EXAMPLES[name]
    folder, trunk, tensors, made = example.write(tmp_path)
    assert readers.recognize(str(folder)) is readers.PUBLIC[name]
    model = RewardModel.from_pretrained(str(folder), device="cpu")
    scores = model.score_conversations([turns(*one) for one in ASKED])
    for score, (question, answer) in zip(scores, ASKED, strict=True):
        ids = made(example.text(question, answer), add_special_tokens=False)["input_ids"]
        (rendered,) = model.render([turns(question, answer)])
        assert rendered.ids == ids or name == "openrlhf"
        with torch.no_grad():
            hidden = getattr(trunk, "model", trunk)(input_ids=torch.tensor([ids])).last_hidden_state[0]
        assert score == pytest.approx(float(example.reward(hidden, tensors, ids)), abs=1e-5)
    packed = model.why_padded()
    assert (packed is None) == (name != "oasst-mean"), packed
    alone = [model.score_conversations([turns(*one)])[0] for one in ASKED]
    padded = RewardModel.from_pretrained(str(folder), device="cpu", shared_prefix=False)
    for other in (alone, padded.score_conversations([turns(*one) for one in ASKED])):
        assert scores == pytest.approx(other, abs=1e-5)
