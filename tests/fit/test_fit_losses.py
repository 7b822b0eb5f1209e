"""Each loss through prepare, the model and its call, against the same thing written out row by row."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from loss_values import check, ids, logprobs, moved, ratio, value
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import logsigmoid

from reckon.errors import InputError
from reckon.fit import (
    KTO,
    SFT,
    BradleyTerry,
    CachedReference,
    ImplicitCE,
    OutcomeBCE,
    OutcomeSteps,
    Preference,
    Prefix,
    PrefixValues,
    StepLabels,
    StepRewards,
    Stepwise,
    Unpaired,
)
from reckon.models import Lora, Optimization
from reckon.types import Problem


def head_after(model, problem, text, ended=True):
    """[1 + t]: the head after the prompt, and after each token of the response."""
    prompt, response = ids(model, problem, text, ended)
    hidden = model.network.base_model(input_ids=torch.tensor([prompt + response]))[0][0]
    return (hidden @ model.head.weight[0])[len(prompt) - 1 :]


def one_text(problem, text):
    return f"<{problem.prompt}|{text}>"


def text_score(model, text):
    """The head at the last token of a text by itself."""
    tokens = torch.tensor([model.tokenizer(text)["input_ids"]])
    return model.network.base_model(input_ids=tokens)[0][0, -1] @ model.head.weight[0]


def test_imitation_counts_every_token_of_the_mini_batch_alike(make, unpaired):
    model = make()
    rows = [logprobs(model, row.problem, row.text, row.ended) for row in unpaired]
    check(value(model, SFT(), unpaired), -torch.cat(rows).mean())


@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_implicit_cross_entropy(make, unpaired, beta):
    model, reference = moved(make)
    z = torch.stack([beta * ratio(model, reference, r.problem, r.text, r.ended) for r in unpaired])
    labels = torch.tensor([row.label for row in unpaired])
    loss = ImplicitCE(reference=CachedReference(reference), beta=beta)
    check(value(model, loss, unpaired), bce(z, labels))
    bare = torch.stack([beta * logprobs(model, r.problem, r.text, r.ended).sum() for r in unpaired])
    check(value(model, ImplicitCE(beta=beta), unpaired), bce(bare, labels))


def test_the_losses_where_policy_and_reference_agree(make, unpaired, paired):
    """CE and DPO ln 2, NCA 2 ln 2, KTO 1 / 2, IPO (1 / (2 beta))^2."""
    model = make()
    reference = CachedReference(model.reference())
    check(value(model, ImplicitCE(reference=reference), unpaired), math.log(2))
    check(value(model, Preference(reference=reference), paired), math.log(2))
    check(value(model, Preference(kind="nca", reference=reference), paired), 2 * math.log(2))
    check(value(model, Preference(kind="ipo", reference=reference, beta=0.5), paired), 1.0)
    check(value(model, KTO(reference=reference), unpaired), 0.5)


def test_kto_takes_its_reference_point_from_shifted_pairs(make, unpaired):
    model, reference = moved(make)
    others = [*unpaired[1:], unpaired[0]]
    mismatched = [
        ratio(model, reference, row.problem, other.text, other.ended)
        for row, other in zip(unpaired, others, strict=True)
    ]
    kl = max(0.0, float(torch.stack(mismatched).detach().mean()))
    expected = []
    for row in unpaired:
        d = ratio(model, reference, row.problem, row.text, row.ended)
        right = 1 - torch.sigmoid(0.1 * (d - kl))
        wrong = 2 * (1 - torch.sigmoid(0.1 * (kl - d)))
        expected.append(row.label * right + (1 - row.label) * wrong)
    loss = KTO(reference=CachedReference(reference), undesirable=2.0)
    check(value(model, loss, unpaired), torch.stack(expected).mean())


def test_bradley_terry_reads_the_end_tokens(make, paired):
    model = make(value_head=True)
    losses = []
    for row in paired:
        chosen, rejected = (
            head_after(model, row.problem, text, ended)[-1]
            for text, ended in zip((row.chosen, row.rejected), row.ended, strict=True)
        )
        losses.append(-logsigmoid(chosen - rejected - (row.margin or 0)) + 0.01 * (chosen + rejected) ** 2)
    check(value(model, BradleyTerry(center=0.01), paired), torch.stack(losses).mean())


def test_bradley_terry_reads_pairs_that_are_made_one_text_each(make, paired):
    model = make(value_head=True)
    losses = []
    for row in paired:
        chosen, rejected = (text_score(model, one_text(row.problem, text)) for text in (row.chosen, row.rejected))
        losses.append(-logsigmoid(chosen - rejected - (row.margin or 0)))
    check(value(model, BradleyTerry(read=one_text), paired), torch.stack(losses).mean())
    with pytest.raises(InputError, match="texts that `read` makes of a pair must begin alike"):
        BradleyTerry(read=lambda problem, text: f"{text}|{problem.prompt}").prepare(model, paired)


def test_an_outcome_model_reads_the_last_token(make, unpaired):
    model = make(value_head=True)
    scores = torch.stack([head_after(model, r.problem, r.text, r.ended)[-1] for r in unpaired])
    check(value(model, OutcomeBCE(), unpaired), bce(scores, torch.tensor([r.label for r in unpaired])))


def test_a_reading_of_its_own_is_one_text_without_template_or_end(make, unpaired):
    model = make(value_head=True)
    scores = torch.stack([text_score(model, one_text(row.problem, row.text)) for row in unpaired])
    expected = bce(scores, torch.tensor([row.label for row in unpaired]))
    check(value(model, OutcomeBCE(read=one_text), unpaired), expected)


def test_what_the_texts_of_a_problem_begin_with_is_computed_once(make, problems):
    """One token a character: "<1+1=|" once and then "2>" and "34>", and "<x|9>" by itself; apart 8 + 9 + 5."""
    model = make(value_head=True)
    rows = [
        Unpaired(problem=problem, text=text, label=1.0)
        for problem, text in ((problems[0], "2"), (problems[2], "9"), (problems[0], "34"))
    ]
    seq, _ = OutcomeBCE(read=one_text).prepare(model, rows)
    model.outputs(seq, ("scores",))
    assert model.counters["score"] == 6 + 2 + 3 + 5


def test_an_outcome_stands_at_every_step(make, problems):
    r"""One token a character: "4\n5\n6." has steps that end at tokens 1, 3 and 5, the last being the end token."""
    model = make(value_head=True)
    rows = [
        Unpaired(problem=problems[0], text="4\n5\n6", label=1.0),
        Unpaired(problem=problems[1], text="", label=0.0),  # one step, its end token
    ]
    first = head_after(model, problems[0], "4\n5\n6")[1:]  # after each token
    second = head_after(model, problems[1], "")[1:]
    expected = bce(torch.stack([*first[[1, 3, 5]], second[0]]), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    check(value(model, OutcomeSteps(), rows), expected)


def test_step_labels_stand_at_the_last_tokens_of_their_steps(make, stepwise):
    r"""Off by one is seen: "1\n2\n3." ends steps at tokens 1, 3, 5; "ab\nc", cut off, at 2 and 3; "5." at 1."""
    model = make(value_head=True)
    one, two, three = (
        head_after(model, row.problem, "".join(row.steps), row.ended)[1:]
        for row in (stepwise[0], stepwise[1], stepwise[2])
    )
    logits = torch.stack([one[1], one[3], two[2], two[3], three[1]])  # the third label is not known
    check(value(model, StepLabels(), stepwise), bce(logits, torch.tensor([1.0, 0.0, 0.75, 0.25, 1.0])))


def test_a_step_without_a_token_loses_its_label(make, problems):
    model = make(value_head=True)
    row = Stepwise(problem=problems[0], steps=("1\n", "", "3"), labels=(1.0, 0.0, 0.5))
    after = head_after(model, problems[0], "1\n3")[1:]
    check(value(model, StepLabels(), [row]), bce(torch.stack([after[1], after[3]]), torch.tensor([1.0, 0.5])))


def test_prefixes_are_read_after_their_last_token_the_empty_one_after_the_prompt(make, prefixes):
    model = make(value_head=True)
    logits = [head_after(model, row.problem, row.text, ended=False)[-1] for row in prefixes]
    expected = bce(torch.stack(logits), torch.tensor([row.q for row in prefixes]))
    check(value(model, PrefixValues(), prefixes), expected)
    seq, _ = PrefixValues().prepare(model, prefixes)
    assert len(seq.tokens) == 3  # "1\n2\n" holds "" and "1\n"


def test_equal_prefixes_count_each(make, problems):
    model = make(value_head=True)
    rows = [Prefix(problem=problems[0], text="1", q=q) for q in (0.0, 1.0, 1.0)]
    logit = head_after(model, problems[0], "1", ended=False)[-1]
    check(value(model, PrefixValues(), rows), bce(logit.expand(3), torch.tensor([0.0, 1.0, 1.0])))


def test_a_prefix_is_read_in_the_tokens_that_were_sampled_where_they_say_its_text(make, problems):
    model = make(value_head=True)
    end = model.tokenizer.eos_token_id
    whole = (*model.tokenizer("12")["input_ids"], end)
    row = Prefix(problem=problems[0], text="12", q=1.0, tokens=whole)
    logit = head_after(model, problems[0], "12", ended=False)[-1]  # before the end token
    check(value(model, PrefixValues(), [row]), bce(logit, torch.tensor(1.0)))
    odd = Prefix(problem=problems[0], text="12", q=1.0, tokens=(whole[0], 0, whole[1]))  # padding says no text
    seq, _ = PrefixValues().prepare(model, [odd])
    assert seq.tokens[0].tolist() == [whole[0], 0, whole[1], end]
    other = Prefix(problem=problems[0], text="12", q=1.0, tokens=(5, 6))  # of another tokenizer
    check(value(model, PrefixValues(), [other]), bce(logit, torch.tensor(1.0)))


@pytest.mark.parametrize("how", ["ce", "mse", "sign"])
def test_the_second_stage_sums_log_ratios_over_steps(make, stepwise, how):
    model, reference = moved(make)
    rewards, labels = [], []
    for row in stepwise:
        text = "".join(row.steps)
        delta = logprobs(model, row.problem, text, row.ended) - logprobs(
            reference._frozen, row.problem, text, row.ended
        )
        cuts = {0: [0, 2, 4, 6], 1: [0, 3, 4], 2: [0, 2]}[stepwise.index(row)]  # one token a character, and the end
        for start, stop, label in zip(cuts, cuts[1:], row.labels, strict=False):
            if label is not None:
                rewards.append(0.5 * delta[start:stop].sum())
                labels.append(label)
    r, target = torch.stack(rewards), torch.tensor(labels)
    expected = {
        "ce": bce(r, target),
        "mse": (r.sigmoid() - target).square().mean(),
        "sign": -logsigmoid((2 * target - 1) * r.abs()).mean(),
    }[how]
    check(value(model, StepRewards(reference=CachedReference(reference), beta=0.5, how=how), stepwise), expected)


def every_loss(reference):
    cached = CachedReference(reference)
    return {
        "sft": (SFT(), "unpaired"),
        "ce": (ImplicitCE(reference=cached), "unpaired"),
        "dpo": (Preference(reference=cached), "paired"),
        "nca": (Preference(kind="nca", reference=cached), "paired"),
        "kto": (KTO(reference=cached), "unpaired"),
        "bt": (BradleyTerry(center=0.01), "paired"),
        "bt of texts": (BradleyTerry(read=one_text), "paired"),
        "bce": (OutcomeBCE(), "unpaired"),
        "bce of texts": (OutcomeBCE(read=one_text), "unpaired"),
        "steps": (OutcomeSteps(), "unpaired"),
        "process": (StepLabels(), "stepwise"),
        "value": (PrefixValues(), "prefixes"),
        "second": (StepRewards(reference=cached), "stepwise"),
    }


LOSSES = list(every_loss(None))


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_does_not_depend_on_how_it_is_cut(make, request, name):
    """Micro-batches of 8 tokens, the whole at once, and the plain path make the same gradient."""
    gradients = []
    for budget, packs in ((8, True), (4096, True), (4096, False)):
        model, reference = moved(make, value_head=True, tokens_per_batch=budget, optimizer=Optimization(clip=None))
        loss, kind = every_loss(reference)[name]
        seq, columns = loss.prepare(model, request.getfixturevalue(kind))
        model._packs = packs
        found = {}
        model._adamw.register_step_pre_hook(
            lambda *_, model=model, found=found: found.update(
                {n: p.grad.clone() for n, p in model._trained.items() if p.grad is not None}
            )
        )
        metrics = model.step(seq, columns, loss, loss.want)
        assert math.isfinite(metrics["policy/loss"])
        gradients.append(found)
    for other in gradients[1:]:
        assert set(other) == set(gradients[0])
        for key, gradient in gradients[0].items():
            torch.testing.assert_close(other[key], gradient, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "kto"])
def test_a_rows_loss_does_not_depend_on_its_batch(make, request, name):
    """The mean over a batch is the mean of its rows alone, weighted by what they count (KTO is the exception)."""
    model, reference = moved(make, value_head=True)
    loss, kind = every_loss(reference)[name]
    rows = request.getfixturevalue(kind)
    alone = torch.stack([value(model, loss, [row]) for row in rows])
    counts = {
        "sft": [2, 10, 1, 6, 5, 2],
        "steps": [1, 1, 1, 3, 2, 1],
        "process": [2, 2, 1],
        "second": [2, 2, 1],
    }.get(name, [1] * len(rows))
    weights = torch.tensor(counts) / sum(counts)
    check(value(model, loss, rows), (alone * weights).sum())


def test_with_adapters_the_reference_is_the_model_without_them(make, unpaired):
    model = make(lora=Lora(rank=2))
    reference = CachedReference(model.reference())
    loss = ImplicitCE(reference=reference)
    seq, columns = loss.prepare(model, unpaired)
    before = columns["reference"].clone()
    for _ in range(3):
        model.step(seq, columns, loss)
    assert torch.equal(loss.prepare(model, unpaired)[1]["reference"], before)
    fresh = CachedReference(model.reference()).logprobs(seq)
    torch.testing.assert_close(fresh, before, atol=1e-6, rtol=0)
    now = model.outputs(seq).logprobs
    assert float((now - before).abs().max()) > 1e-4


def test_a_cache_knows_rows_by_their_tokens(make, unpaired):
    model = make()
    cached = CachedReference(model.reference())
    loss = ImplicitCE(reference=cached)
    seq, columns = loss.prepare(model, unpaired)
    assert len(cached) == 6
    calls = []
    outputs = cached.reference.outputs
    cached.reference.outputs = lambda *given: calls.append(given) or outputs(*given)
    again, shuffled = loss.prepare(model, unpaired[::-1])
    assert not calls
    for row in range(6):
        place = next(
            i
            for i in range(6)
            if again.tokens[i].tolist() == seq.tokens[row].tolist()
            and again.prompts[again.group[i]].tolist() == seq.prompts[seq.group[row]].tolist()
        )
        assert torch.equal(shuffled["reference"][place], columns["reference"][row])
    other = Problem(id="p0", prompt="1+2=")  # the same id and response, another prompt: another row
    loss.prepare(model, [Unpaired(problem=other, text="2", label=1.0)])
    assert len(calls) == 1
    assert len(cached) == 7


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda: ImplicitCE(beta=0), "`beta` is 0, but must be above 0"),
        (lambda: Preference(smoothing=0.5), "`smoothing` is 0.5"),
        (lambda: Preference(kind="ipo", smoothing=0.1), "the loss 'ipo' has none"),
        (lambda: Preference(gamma=0.1), "`gamma` is set, but the loss 'dpo' has none"),
        (lambda: Preference(kind="simpo", gamma=-0.1), "`gamma` is -0.1"),
        (lambda: BradleyTerry(center=-1), "`center` is -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(loss, message):
    with pytest.raises(InputError, match=message):
        loss()


def test_rows_of_another_kind_and_without_a_label_are_refused(make, paired, problems):
    model = make(value_head=True)
    with pytest.raises(InputError, match="OutcomeBCE learns from rows of kind Unpaired, not Paired"):
        OutcomeBCE().prepare(model, paired)
    with pytest.raises(InputError, match="the response to problem 'p0' has none"):
        OutcomeBCE().prepare(model, [Unpaired(problem=problems[0], text="1")])
    with pytest.raises(InputError, match="at least 2 rows"):
        KTO(reference=CachedReference(model.reference())).prepare(
            model, [Unpaired(problem=problems[0], text="1", label=1)]
        )


def test_labels_out_of_range_are_refused(problems):
    with pytest.raises(InputError, match=r"problem 'p0' has the label 1.5, but a label is in \[0, 1\]"):
        Unpaired(problem=problems[0], text="1", label=1.5)
    with pytest.raises(InputError, match="2 steps and 1 labels"):
        Stepwise(problem=problems[0], steps=("a", "b"), labels=(1.0,))
    with pytest.raises(InputError, match="nan"):
        Prefix(problem=problems[0], text="1", q=math.nan)


def test_dropout_cannot_be_on_in_a_judge(make, unpaired):
    """Whatever a network came with: the model is in evaluation mode, and stays there while it learns."""
    model = make(value_head=True)
    loss = OutcomeBCE()
    seq, columns = loss.prepare(model, unpaired)
    model.step(seq, columns, loss, loss.want)
    assert not any(module.training for module in model.network.modules())
    first, second = (model.outputs(seq, ("scores",)).scores for _ in range(2))
    assert torch.equal(first, second)


def test_the_end_token_has_the_label_of_a_last_step_without_text(make, problems):
    """Bytes: a, newline, b, newline, end. The third step has the end token alone, and cut off it has none."""
    model = make(value_head=True)
    row = Stepwise(problem=problems[0], steps=("a\n", "b\n", ""), labels=(1.0, 0.5, 0.0))
    after = head_after(model, row.problem, "a\nb\n")
    labels = torch.tensor([1.0, 0.5, 0.0])
    check(value(model, StepLabels(), [row]), bce(torch.stack([after[2], after[4], after[5]]), labels))
    cut = replace(row, ended=False)
    check(value(model, StepLabels(), [cut]), bce(torch.stack([after[2], after[4]]), labels[:2]))
    silent = Stepwise(problem=problems[0], steps=("", ""), labels=(1.0, 0.0))
    check(value(model, StepLabels(), [silent]), bce(head_after(model, row.problem, "")[-1:], torch.tensor([0.0])))


def test_kto_takes_the_response_to_another_prompt_where_there_is_one(make, problems):
    """In file order: two of p0, one of p1, one of p0. The first two take p1's, p1 the last, and that p1's."""
    model, reference = moved(make)
    p, q = problems[:2]
    rows = [Unpaired(problem=p, text=text, label=1.0) for text in "abcd"]
    rows[2] = Unpaired(problem=q, text="c", label=0.0)
    pairs = [(p, "c"), (p, "c"), (q, "d"), (p, "c")]
    kl = torch.stack([ratio(model, reference, problem, text) for problem, text in pairs]).detach().mean()
    _, columns = KTO(reference=CachedReference(reference)).prepare(model, rows)
    assert columns["kl"].tolist() == pytest.approx([max(0.0, float(kl))] * 4, abs=1e-5)
    assert float(kl) > 0
    _, alone = KTO(reference=CachedReference(reference)).prepare(model, rows[:2])  # of one prompt: the next response
    same = torch.stack([ratio(model, reference, p, text) for text in "ba"]).detach().mean()
    assert float(alone["kl"][0]) == pytest.approx(max(0.0, float(same)), abs=1e-5)


@pytest.mark.parametrize("name", ["desirable", "undesirable"])
def test_kto_has_no_weights_below_zero(make, name):
    with pytest.raises(InputError, match=f"KTO: `{name}` is -1"):
        KTO(reference=CachedReference(make().reference()), **{name: -1.0})
