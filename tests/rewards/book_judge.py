"""A judge in memory that learns a score for every text it meets, and a batch whose pairs are known by hand."""

from dataclasses import replace
from types import SimpleNamespace

import torch
from judge_models import NAN, batch_of

from reckon.models import Optimization
from reckon.rewards import OnlineReferenceBased
from reckon.tasks import Number
from reckon.types import Outputs, Problem, Rng

RNG = Rng((0, "reward"))
PLAIN = Optimization(lr=1.0, clip=None)


class Numbers:
    """Any number is judged by the reference."""

    name = "numbers"

    def problems(self, split):
        return []

    def check(self, problem, text):
        return Number()(text, problem.answer)


class Book:
    """A judge with a score for each text it has met, moved by plain gradient descent; the text's number is a token."""

    network = SimpleNamespace(config=SimpleNamespace(get_text_config=SimpleNamespace))
    device = torch.device("cpu")

    def __init__(self, known=(), lr=1.0):
        self.texts, self.lr, self.losses, self.met = [], lr, [], []
        self.known = dict(known)  # by the completion
        self.weights = torch.zeros(100, requires_grad=True)
        self.tokenizer = self.Tokenizer(self)

    class Tokenizer:
        model_max_length = None

        def __init__(self, book):
            self.book = book

        def __call__(self, text):
            book = self.book
            if text not in book.texts:
                book.texts.append(text)
                completion = text.partition("<completion>")[2].removesuffix("</completion>")
                with torch.no_grad():
                    book.weights[len(book.texts)] = book.known.get(completion, 0.0)
            return {"input_ids": [0, 1 + book.texts.index(text)]}

    def twin(self, optimizer, *, value_head=False):
        assert value_head
        return Book(self.known, optimizer.lr)

    def outputs(self, seq, want=("logprobs",)):
        assert tuple(want) == ("scores",)
        return Outputs(scores=self.weights.detach()[seq.tokens])

    def step(self, seq, columns, loss, want=("logprobs",)):
        outputs = Outputs(scores=self.weights[seq.tokens])
        value = loss(outputs, columns).sum()
        (gradient,) = torch.autograd.grad(value, self.weights)
        self.losses.append(float(value.detach()))
        self.met.append(seq.tokens[:, 0].tolist())
        with torch.no_grad():
            self.weights -= self.lr * gradient
        told = {f"policy/{name}": float(x) for name, x in loss.diagnostics(outputs, columns).items()}
        return told | {"policy/loss": float(value.detach()), "policy/grad_norm": float(gradient.norm())}

    def state_dict(self):
        return {"weights": self.weights.detach().clone(), "texts": list(self.texts)}

    def load_state_dict(self, state):
        self.weights, self.texts = state["weights"].clone().requires_grad_(), list(state["texts"])

    def score_of(self, completion):
        (place,) = [i for i, text in enumerate(self.texts) if text.endswith(f"<completion>{completion}</completion>")]
        return float(self.weights.detach()[1 + place])


PROBLEMS = [Problem(id=f"p{g}", prompt=f"sum {g}?", answer=answer) for g, answer in enumerate(("85", "7", "3"))]
# Right are rows 1 and 2 of the first prompt and row 4 of the second; row 3 nobody could judge; the third has none
TEXTS = ["a 1", "b 85", "c 85", "d 7", "e 7", "f 4"]
GROUP, OUTCOME = [0, 0, 0, 1, 1, 2], [0.0, 1.0, 1.0, NAN, 1.0, 0.0]
WRONG = {"b 85": "b 91", "c 85": "c 91", "e 7": "e 8"}


def make_wrong(problem, text, rng):
    return WRONG[text]


def batch(step=0, outcome=OUTCOME):
    return replace(batch_of([[text] for text in TEXTS], group=GROUP, outcomes=outcome, problems=PROBLEMS), step=step)


def reward_of(known=(), *, optimizer=PLAIN, **settings):
    settings.setdefault("negatives", make_wrong)
    return OnlineReferenceBased(Book(known), Numbers(), optimizer=optimizer, **settings)


def values(streams):
    ((name, stream),) = streams.items()
    assert name == "online_reference_based"
    assert (stream.kind, stream.train) == ("reward", True)
    return stream.values
