"""The planted sequence as text: exact values of letters, a verifier that is read as it is fitted, the study's rules."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from reckon.fit import Prefix
from reckon.rewards import StepAdvantage, load_judge
from reckon.samplers import All, Uniform, collect
from reckon.steps import token_steps
from reckon.studies import _language_model, judge, load_study
from reckon.studies import _planted_texts as planted
from reckon.studies import process_advantage_verifiers_transformer as study
from reckon.studies._planted import END, prover, q_and_v
from reckon.studies._planted_verifier import draw_labels
from reckon.studies._saved_judge import SavedJudge
from reckon.types import Rng, Rollouts

SEED = 7  # the study does not use it
TASK = planted.PlantedText()
PROBLEM = TASK.problems("train")[0]
V = q_and_v(prover(10.0))[1]


@pytest.fixture(scope="module")
def start():
    return planted.make_start(3, 64, 5.0)


@pytest.fixture(scope="module")
def verifier(start):
    return planted.fit_verifier(start, traces(), 8, Rng((1,)), 1e-2)


@pytest.fixture(scope="module")
def saved(verifier):
    return SavedJudge(verifier, {"kind": "step_advantage", "splitter": planted.STEP})


def traces(n=10):
    """Beginnings of dgad and a letter; the label is 1 where they end with a."""
    rows = []
    for i in range(n):
        tokens = [3, 6, 0, 3, i % 14]
        rows.append(
            tuple(
                Prefix(problem=PROBLEM, text="unread", q=float(tokens[:t][-1:] == [0]), tokens=tuple(tokens[:t]))
                for t in range(6)
            )
        )
    return rows


def rollouts_of(start, texts, ended):
    """Given responses as if they had been drawn."""
    model = start.open()
    seq = model.tokenize_groups([PROBLEM], texts, [0] * len(texts), ended)
    return Rollouts(
        seq=seq,
        problems=(PROBLEM,),
        text=tuple(texts),
        pieces=model.pieces(seq),
        logprobs=torch.zeros(seq.mask.shape),
        end=torch.tensor([0 if over else 2 for over in ended]),
    )


def batch_of(start, texts, ended):
    """Given responses as the loop hands them to a reward."""
    drawn = collect(
        Uniform(TASK),
        start.open(),
        lambda r: [TASK.check(PROBLEM, text) for text in r.text],
        All(),
        1,
        len(texts),
        Rng((0,)),
        step=0,
    )
    return replace(drawn, rollouts=rollouts_of(start, texts, ended))


# The world


@pytest.mark.parametrize(
    ("text", "right"), [("dgadf", 1), ("aadgadfb", 1), ("dgad", 0), ("dgadgadf", 1), ("dg?adf", 0), ("", 0)]
)
def test_the_word_is_the_target_in_letters(text, right):
    """3 6 0 3 5 is d g a d f."""
    assert planted.WORD == "dgadf"
    assert TASK.check(PROBLEM, text).outcome == right


def test_tokens_are_letters_and_the_end_is_none():
    assert planted.text_of([3, 6, 0, 3, 5, 13, END]) == "dgadfn"
    assert planted.text_of([END]) == ""


def test_texts_say_what_their_tokens_say(start):
    """Also where a policy writes the prompt's token, and after the tokenizer was saved."""
    model = start.open()
    assert model.response_tokens("ab?#n") == [2, 3, 1, 1, 15, 0]
    assert model.pieces(model.arrange([PROBLEM], [[5, 1, 2, 0]], [0])) == (("d", "?", "a", ""),)


def test_exact_values_by_hand(start):
    """A state is how much of the word the last letters spell: dgadg spells dg again, and ? spells nothing."""
    rollouts = rollouts_of(start, ["dga", "dgadg", "dgadfa", "d?"], [True, False, True, True])
    spelled = [[0, 1, 2, 3], [0, 1, 2, 3, 4, 2], [0, 1, 2, 3, 4], [0, 1, 0]]
    wanted = [[float(V[t, k]) for t, k in enumerate(row)] for row in spelled]
    wanted[2] += [1.0, 1.0]  # found, and so it stays
    tokens = planted.exact_values(rollouts, token_steps(rollouts.seq.mask))
    for row, values in enumerate(wanted):
        assert tokens[row, : len(values)].tolist() == pytest.approx(values)
    assert [float(tokens[row, len(wanted[row])]) for row in (0, 2, 3)] == [0.0, 1.0, 0.0]  # behind the end: the verdict


def test_a_start_depends_on_its_seed_alone(start):
    again = planted.make_start(3, 64, 5.0)
    weights = [[p.detach() for p in one.open().network.parameters()] for one in (start, again)]
    assert all(a.equal(b) for a, b in zip(*weights, strict=True))
    assert start.sampling.max_new_tokens == 10


def test_a_provers_labels_are_its_own():
    """At the start mu_100 is right 0.815 of the time, mu_10 0.046 (section 6.5 of the specification); 4 errors wide."""
    for gamma, chance in ((100.0, 0.81508775), (10.0, 0.04552423)):
        drawn = draw_labels("random", 1, 1200, Rng((5,)), gamma)
        at_start = [trace[0].q for trace in drawn.traces]
        assert len(at_start) > 80
        assert abs(sum(at_start) / len(at_start) - chance) < 4 * math.sqrt(chance * (1 - chance) / len(at_start))


# The verifier and what is made of it


def test_a_verifier_is_read_as_it_is_fitted(start, verifier, saved):
    """By the study, by tokens; and by the judge in its folder, by the letters of what a policy wrote."""
    opened = load_judge(saved.folder, dtype="float32")
    assert isinstance(opened, StepAdvantage)
    texts = ["dgadfbcdef", "aaaaaaaaaa"]
    values = opened.values(batch_of(start, texts, [False, False]))
    tokens = torch.tensor([[planted.LETTERS.index(letter) for letter in text] for text in texts])
    assert planted.Reads(verifier).values(tokens).flatten().tolist() == pytest.approx(
        values.flatten().tolist(), abs=1e-5
    )
    assert values.std() > 1e-4


def test_credit_is_held_against_the_policys_mean_by_hand(start):
    """Of a policy that says all tokens equally often.

    At the start Q is 0.057863 for d, 0 for the end and 0.039534 for the thirteen others (the specification's section
    6.5), on average 0.038120. The verdict is 1 whatever follows the word, so that nothing follows from it.
    """
    policy = start.open()
    with torch.no_grad():
        policy.network.get_output_embeddings().weight.zero_()
    batch = batch_of(start, ["dgadfa", "c", "", "?"], [True] * 4)
    stream = planted.Progress(policy).score(batch)["progress"]
    assert stream.kind == "advantage"
    assert stream.values[:, 0].tolist() == pytest.approx([0.019743, 0.001414, -0.038120, 0.001414], abs=1e-6)
    assert stream.values[0, 5:].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert stream.values[2, 1:].tolist() == [0.0] * 6
    assert planted.Progress(start.open()).score(batch)["progress"].values[0, 0] != stream.values[0, 0]


def test_exact_worth_is_that_of_the_prover_asked_for():
    """Its mean under the prover's own law is its chance at the start: 0.81508775 of mu_100."""
    worth = planted.exact_worth(torch.tensor([[1]]), 100.0)[0, 0]
    assert float((prover(100.0)[0, 0].float() * worth).sum()) == pytest.approx(0.815088, abs=1e-5)


def test_a_learned_worth_is_that_of_each_changed_response(start, verifier, saved):
    """One by one: the response with another letter in that place, read up to it. Ends are checked."""
    batch = batch_of(start, ["dgadfbcdef", "da"], [False, True])
    tokens = torch.tensor([[3, 6, 0, 3, 5, 1, 2, 3, 4, 5], [3, 0, END] + [planted.OTHER] * 7])
    found = planted.learned_worth(verifier, batch.seq, tokens)
    assert found.shape == (2, 10, 15)
    for row, size in ((0, 9), (1, 3)):
        for place in range(size):
            changed = tokens[row].repeat(14, 1)
            changed[:, place] = torch.arange(14)
            read = planted.Reads(verifier).values(changed)[:, place + 1]
            assert found[row, place, :14].tolist() == pytest.approx(read.tolist(), abs=1e-5)
    assert found[0, :, END].tolist() == [0.0] * 5 + [1.0] * 5
    assert found[0, 9].tolist() == [1.0] * 15  # the tenth token ends the response, and it is right already
    assert found[1, :3, END].tolist() == [0.0] * 3
    policy = start.open()
    learned, exact = (planted.Progress(policy, folder).score(batch)["progress"] for folder in (str(saved.folder), None))
    assert not torch.allclose(learned.values, exact.values, atol=1e-3)
    with torch.no_grad():
        policy.network.get_output_embeddings().weight.zero_()
    evenly = planted.Progress(policy, str(saved.folder)).score(batch)["progress"].values
    assert float(evenly[0, 1]) == pytest.approx(float(found[0, 1, 6] - found[0, 1].mean()), abs=1e-5)


def test_short_responses_alone_have_a_learned_worth(start, verifier):
    """One token is the whole batch: there is nothing before its letters but the prompt."""
    batch = batch_of(start, ["", ""], [True, True])
    found = planted.learned_worth(verifier, batch.seq, torch.full((2, 1), END))
    read = planted.Reads(verifier).values(torch.arange(14)[:, None])[:, 1]
    assert found.shape == (2, 1, 15)
    assert found[1, 0, :14].tolist() == pytest.approx(read.tolist(), abs=1e-5)


def test_agreement_is_1_with_the_truth_and_does_not_count_what_is_right(start, saved, monkeypatch):
    policy = start.open()
    assert abs(planted.agreement(policy, str(saved.folder), 10.0, Rng((2,)))) < 0.99
    texts = ["dgadfbcdef", "dgadgadfaa", "abcdgadfaa"]
    monkeypatch.setattr(policy, "sample", lambda *_: rollouts_of(start, texts, [False] * 3))
    found = {}
    for name, noise in (("truth", 0.0), ("after it is right", 1.0)):

        def worth(_verifier, _seq, tokens, noise=noise):
            right = planted.states(tokens)[:, :-1, None] == planted.FOUND
            numbers = torch.rand(*tokens.shape, 15, generator=torch.Generator().manual_seed(0))
            return planted.exact_worth(tokens, 10.0) + noise * right * numbers

        monkeypatch.setattr(planted, "learned_worth", worth)
        found[name] = planted.agreement(policy, str(saved.folder), 10.0, Rng((2,)))
    assert found == {"truth": pytest.approx(1.0), "after it is right": pytest.approx(1.0)}


def test_a_verifier_is_kept_as_it_was_at_its_best_look(start, monkeypatch):
    monkeypatch.setattr(planted, "LOOK", 1)
    looks = iter([0.5, 0.4, 0.6])
    monkeypatch.setattr(planted, "measure", lambda *_: {"dev/loss": next(looks)})
    best = planted.fit_verifier(start, traces(), 3, Rng((1,)), 1e-2)
    looks = iter([0.5, 0.4])
    early = planted.fit_verifier(start, traces(), 2, Rng((1,)), 1e-2)
    assert best.head.weight.equal(early.head.weight)
    assert best.head.weight.any()


def test_half_a_verifier_is_none(start, monkeypatch):
    monkeypatch.setattr(planted, "fit", lambda *_, **__: False)
    with pytest.raises(KeyboardInterrupt):
        planted.fit_verifier(start, traces(), 1, Rng((1,)), 1e-2)


# The study

ALIKE = {  # one arm of each kind, and those that run the same lines
    study.OUTCOME: (study.BONUS, study.EASY_OUTCOME),
    study.EXACT: (study.WEAK, study.STRONG, study.EASY_EXACT),
    study.CRITIC: (),
    study.PROVER: (),
    study.FEW_1: (study.MIDDLE, study.MANY_20, study.FEW_STRONG),
    study.FITTED: (),
    study.FEW_20: (study.MANY_1,),
}


def run_cell(arm):
    return study.cell({**study.ARMS[arm], **study.STUDY.fast}, SEED)


@pytest.fixture(scope="module")
def cells():
    return {arm: run_cell(arm) for arm in ALIKE}


def test_it_is_a_study_of_the_house():
    assert load_study("process-advantage-verifiers-transformer") is study.STUDY


def test_every_claim_and_row_reads_what_is_there(cells):
    found = {arm: cells[one].metrics for one, others in ALIKE.items() for arm in (one, *others)}
    assert set(found) == set(study.ARMS)
    told = {effect.says: effect.of(found) for claim in study.CLAIMS for effect in claim.effects}
    told |= {f"{row.arm}: {row.metric}": found[row.arm][row.metric] for row in study.STUDY.rows}
    assert [name for name, value in told.items() if not math.isfinite(value)] == []


def test_labels_are_counted(cells):
    for arm, cell in cells.items():
        spent = cell.metrics.get("rollouts for labels", 0.0)
        assert (0 < spent <= 200) == (study.ARMS[arm]["judge"] == "learned")
        assert cell.metrics.get(study.ALL, 2 * 64 + spent) == 2 * 64 + spent


def test_arms_begin_alike_and_draw_the_same_numbers(monkeypatch):
    """After a step they have learned different things: the first responses are as long in all arms, the next not."""
    run, lengths = _language_model.run, []

    def watched(*given, **named):
        done = run(*given, **named)
        lengths.append(list(done.curve("length/mean").values()))
        return done

    monkeypatch.setattr(_language_model, "run", watched)
    for arm in (study.OUTCOME, study.EXACT):
        study.cell({**study.ARMS[arm], **study.STUDY.fast, "lr": 1e-2}, SEED)
    first, second = zip(*lengths, strict=True)
    assert len(set(first)) == 1
    assert len(set(second)) == 2


def test_a_cell_depends_on_settings_and_seed_alone(cells):
    study._start.cache_clear()
    study._verifier.cache_clear()
    assert run_cell(study.FEW_1).metrics == cells[study.FEW_1].metrics


@pytest.mark.parametrize(
    ("right", "wanted"),
    [
        ([0.0] * 3 + [1.0] * 10, (8.0, 1.0, 10 / 13, 1.0)),  # four of five steps are 0.8, five are 1
        ([1.0] * 7, (5.0, 1.0, 1.0, 1.0)),  # not before five steps
        ([0.8] * 6, (6.0, 0.0, 0.8, 0.8)),
    ],
)
def test_steps_to_0_9_by_hand(right, wanted, monkeypatch):
    done = SimpleNamespace(curve=lambda _: dict(enumerate(right, start=1)))
    monkeypatch.setattr(_language_model, "run", lambda *_, **__: done)
    monkeypatch.setattr(study, "_start", lambda *_: None)
    found, recent = study._train(study.ARMS[study.OUTCOME], None, SEED)
    assert tuple(found[name] for name in (study.SOONER, "solved", "mean", "end")) == pytest.approx(wanted)
    assert len(recent) == len(right)


def test_arms_are_recipes_that_differ_where_they_say():
    folder = SimpleNamespace(folder="F")
    recipes = {
        arm: study.recipe_of(settings, folder if settings["judge"] == "learned" else None)
        for arm, settings in study.ARMS.items()
        if settings["trains"]
    }
    steps = {arm: recipe["reward"].get("progress", {}) for arm, recipe in recipes.items()}
    kinds = {arm: str(step.get("kind")).rpartition(":")[2] for arm, step in steps.items()}
    own = {study.CRITIC: "exact_advantage", study.PROVER: "exact_advantage", study.FITTED: "fitted"}
    alone = (study.OUTCOME, study.BONUS, study.EASY_OUTCOME)
    assert kinds == dict.fromkeys(recipes, "Progress") | dict.fromkeys(alone, "None") | own
    assert {arm for arm, step in steps.items() if step.get("folder") == "F"} == {
        *study.BUDGETS,
        study.FEW_STRONG,
        study.FITTED,
    }
    gammas = {arm: step["gamma"] for arm, step in steps.items() if step.get("gamma", 10.0) != 10.0}
    assert gammas == {study.WEAK: 2.0, study.STRONG: 100.0, study.FEW_STRONG: 100.0}
    assert {arm for arm, recipe in recipes.items() if "critic" in recipe} == {study.CRITIC, study.FITTED}
    bonus = {arm: recipe["objective"]["entropy"]["coef"] for arm, recipe in recipes.items()}
    assert bonus == dict.fromkeys(recipes, 0.01) | {study.OUTCOME: 0.0, study.EASY_OUTCOME: 0.0}
    assert len({recipe["optimizer"]["lr"] for recipe in recipes.values()}) == 1
    lengths = {arm: recipe["steps"] for arm, recipe in recipes.items()}
    assert lengths == dict.fromkeys(recipes, study.STEPS) | {study.OUTCOME: study.LONG}
    easy = {arm for arm, settings in study.ARMS.items() if settings["base"] == 5.0}
    assert easy == {study.EASY_OUTCOME, study.EASY_EXACT}


def made_up(good):
    """Numbers of every arm that the claims wish for, or the same for all of them."""
    arms = {arm: dict.fromkeys(study.SAYS, 0.5) | {study.SOONER: 100.0, study.ALL: 6400.0} for arm in study.ARMS}
    if not good:
        return arms
    sooner = {
        study.OUTCOME: 600.0,
        study.BONUS: 120.0,
        study.EXACT: 20.0,
        study.STRONG: 30.0,
        study.CRITIC: 25.0,
        study.PROVER: 20.0,
        study.FEW_1: 60.0,
        study.MIDDLE: 40.0,
        study.MANY_20: 25.0,
        study.FITTED: 50.0,
    }
    for arm, steps in sooner.items():
        arms[arm] |= {study.SOONER: steps, study.ALL: 64 * steps + study.ARMS[arm]["rollouts"]}
    ranks = {study.FEW_1: 0.5, study.FEW_20: 0.3, study.MIDDLE: 0.55, study.MANY_1: 0.6, study.MANY_20: 0.7}
    for arm, rank in ranks.items():
        arms[arm] |= {study.V_RANK: rank + 0.2, study.A_RANK: rank, study.AGREES: rank - 0.1}
    arms[study.FEW_STRONG][study.AGREES] = 0.2
    return arms


def test_the_rules_can_be_seen_and_can_fail():
    tested = [claim for claim in study.CLAIMS if claim.effects]
    assert [judge(claim, [made_up(True)] * 3, 3).verdict for claim in tested] == ["seen"] * len(tested)
    # where all are equal, none needs one and a half times the steps of another
    seen = [claim.says for claim in tested if judge(claim, [made_up(False)] * 3, 3).verdict == "seen"]
    assert seen == [
        "Where the start is right one time in two hundred, the outcome alone is as quick",
        "Held against a critic, as in the paper, or the prover's own value, exact advantages do as well",
        "The verifier that ranks advantages best needs less than one and a half times the steps of exact ones",
    ]
