"""Every kind there is, and a task or a model by itself."""

import pytest

from reckon.errors import InputError
from reckon.recipe import KINDS, describe, load_kind, make_task, open_target, settings
from reckon.types import snake_case


@pytest.mark.parametrize(("role", "kind"), [(role, kind) for role, kinds in KINDS.items() for kind in kinds])
def test_every_kind_is_there_and_can_be_described(role, kind):
    target = load_kind(role, kind)
    assert snake_case(target.__name__) == kind
    assert target.__doc__
    for setting in settings(target).values():
        assert setting.name != "kind"
        assert setting.name != "watch" or kind == "sum"
        assert describe(setting.annotation)


@pytest.mark.parametrize(
    ("name", "snake"), [("KLReward", "kl_reward"), ("DropEqual", "drop_equal"), ("Http", "http"), ("A1B", "a1_b")]
)
def test_snake_case(name, snake):
    assert snake_case(name) == snake


def test_tasks_are_those_of_their_room():
    import reckon.tasks

    room = [getattr(reckon.tasks, name) for name in reckon.tasks.__all__]
    tasks = {part for part in room if isinstance(part, type) and hasattr(part, "problems")}
    assert {load_kind("task", kind) for kind in KINDS["task"]} == tasks


def test_every_part_of_the_rooms_is_a_kind():
    import reckon.credit
    import reckon.losses
    import reckon.rewards
    import reckon.samplers

    known = {path for kinds in KINDS.values() for path in kinds.values()}
    top = {"Sum", "Objectives", "Function"}  # what a recipe writes as a mapping of names, or as `file.py:name`
    top |= {"ImplicitReward", "OutcomeModel", "StepModel", "StepAdvantage", "ReferenceBased", "StagedReward"}
    # Those are opened by `fitted`; of the last this is the head, which reads states.
    top |= {"StagedRewardHead"}
    top |= {"ConfidenceRows"}  # asked for labels of steps, not for a reward
    for module in (reckon.credit, reckon.losses, reckon.rewards, reckon.samplers):
        names = getattr(module, "__all__", [n for n in vars(module) if n[0].isupper()])
        for name in names:
            part = getattr(module, name)
            is_part = isinstance(part, type) and part.__module__.startswith("reckon") and _plays_a_role(part)
            if is_part and part.__module__ != "reckon.types" and name not in top:
                assert f"{module.__name__}:{name}" in known, f"{name} is a part without a kind"


def _plays_a_role(part):
    return not getattr(part, "_is_protocol", False) and any(
        name in vars(part) for name in ("score", "draw", "prepare", "__call__")
    )


def test_a_task_by_itself(folder, monkeypatch):
    monkeypatch.chdir(folder)
    part, task = make_task("own.py:Copy", ["task.count=5"])
    assert len(task.problems("train")) == 5
    assert part.plain()["count"] == 5
    with pytest.raises(InputError, match=r"command line, `task.cuont=5`: .* Did you mean `count`\?"):
        make_task("own.py:Copy", ["task.cuont=5"])
    with pytest.raises(InputError, match="`steps` is not a setting of a task"):
        make_task("own.py:Copy", ["steps=5"])


def test_a_model_by_itself_is_checked_before_it_is_loaded():
    part, task, _ = open_target("no/such-model", None, ["sampling.temperature=0.5"], "best")
    assert part is None
    assert task is None
    with pytest.raises(InputError, match=r"`sampling.temprature` is not a setting.* Did you mean `temperature`\?"):
        open_target("tiny", None, ["sampling.temprature=1"], "best")
    with pytest.raises(InputError, match="there is no task to set this of"):
        open_target("tiny", None, ["task.n=1"], "best")
