"""What the tests of the fit's losses share: a model apart from its reference, and their numbers of one row alone."""

import pytest
import torch


def ids(model, problem, text, ended=True):
    prompt = model.tokenizer(problem.prompt)["input_ids"]
    return prompt, model.tokenizer(text)["input_ids"] + [model.tokenizer.eos_token_id] * ended


def logprobs(model, problem, text, ended=True):
    """[t] of one response alone, through transformers."""
    prompt, response = ids(model, problem, text, ended)
    logits = model.network(input_ids=torch.tensor([prompt + response])).logits[0]
    laws = logits[len(prompt) - 1 : -1].log_softmax(dim=1)
    return laws.gather(1, torch.tensor(response)[:, None])[:, 0]


def moved(make, **settings):
    """A model and a reference that differ."""
    model = make(**settings)
    reference = model.reference()
    with torch.no_grad():
        for parameter in model._trained.values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return model, reference


def value(model, loss, rows):
    seq, columns = loss.prepare(model, rows)
    return loss(model.outputs(seq, loss.want), columns).sum()


def check(found, expected):
    assert float(found.detach()) == pytest.approx(float(torch.as_tensor(expected).detach()), abs=1e-5, rel=2e-6)


def ratio(model, reference, problem, text, ended=True):
    ours = logprobs(model, problem, text, ended).sum()
    live = reference._frozen if reference._frozen is not None else None
    assert live is not None
    return ours - logprobs(live, problem, text, ended).sum()
