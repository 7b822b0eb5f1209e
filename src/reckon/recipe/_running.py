"""From a recipe to a run: load, warm up, train, examine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from reckon.errors import InputError, MissingError
from reckon.evaluate import Answers, Comparison, Evaluation, Response, compare, evaluate
from reckon.files import write_table
from reckon.recipe._recipe import Recipe
from reckon.recipe._schema import Frame
from reckon.runs import EVALUATIONS, Progress, Run, make_table
from reckon.stopping import stoppable
from reckon.types import Judges, Metrics, Policy, Rng, Split, Stateful, Task, Worked

if TYPE_CHECKING:
    from reckon.models import LanguageModel

Show: TypeAlias = Literal["auto", "bar", "lines", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to."""

    folder: Path
    steps: int  # finished and saved
    finished: bool  # False = interrupted, and can be resumed
    comparison: Comparison | None  # of the final split: before the first step and after the last
    idle: int  # steps in which all answers to each problem earned the same, so that none was better than another
    stopped: str | None = None  # what a part had to say that asked for an early end; None = nobody did


@dataclass(kw_only=True)
class Examiner:
    """Evaluates the policy when the recipe says so, and writes every answer to the run."""

    recipe: Recipe
    run: Run
    warmed: Metrics = field(default_factory=dict)  # what the warm-up measured, logged with step 0
    reward: Judges | None = None  # judges the answers beside the checker

    def __call__(self, policy: Policy, step: int) -> Metrics:
        """The metrics that are due after `step` steps; {} if none are."""
        metrics = dict(self.warmed) if step == 0 else {}
        for split in self._due(step):
            found = self.examine(policy, split)
            self.run.evaluation(split, step, found.columns(step))
            metrics |= found.logged(split)
        return metrics

    def examine(self, policy: Policy, split: Split) -> Evaluation:
        """One evaluation. The same problems and random numbers at every step, so that steps can be compared."""
        plan, task = self.recipe.frame.evaluate, self.recipe.made_task
        assert plan is not None
        n = len(task.problems(split))
        return evaluate(
            cast("Answers", policy),
            task,
            rng=Rng((self.recipe.frame.seed, "evaluate")),
            split=split,
            n=n if plan.n is None else min(n, plan.n),
            k=plan.k,
            greedy=plan.greedy,
            reward=self.reward,
        )

    def _due(self, step: int) -> list[Split]:
        plan, steps = self.recipe.frame.evaluate, self.recipe.frame.steps
        if plan is None:
            return []
        ends = step in (0, steps)
        due = [plan.split] if ends or (plan.every and step % plan.every == 0) else []
        if ends and plan.final is not None and plan.final not in due:
            due.append(plan.final)
        return due


def run_recipe(recipe: Recipe, *, overwrite: bool = False, show: Show = "auto") -> Outcome:
    """Trains as the recipe says, in a new run's folder `recipe.out`.

    Args:
        recipe: what to do.
        overwrite: delete the run that may be there.
        show: how progress is shown, on stderr.

    Raises:
        InputError: a value that a part or the model refuses.
        RunError: a run is there already; no room on the disk; a reward function that failed.
    """
    recipe.check_training()
    policy, warmed = None, dict[str, float]()
    if overwrite or not (recipe.out / "recipe.yaml").exists():  # a model that cannot be loaded must leave no run behind
        policy, warmed = warmed_policy(recipe, show)
    with Run.create(
        recipe.out,
        recipe=recipe.resolved(),
        overwrite=overwrite,
        targets=recipe.frame.log,
        keep_last=recipe.frame.save.keep,
    ) as run:
        assert policy is not None
        return _train(recipe, run, policy, Examiner(recipe=recipe, run=run, warmed=warmed), show)


def resume_run(folder: str | Path, recipe: Recipe | None = None, *, show: Show = "auto") -> Outcome:
    """Goes on with an interrupted run, exactly where its last checkpoint left off.

    Args:
        folder: the run's.
        recipe: if given, must be the one the run was begun with; else it is read from the run.
        show: how progress is shown, on stderr.

    Raises:
        MissingError: there is no run in the folder.
        RunError: the run was begun with another recipe, or is being written by another process.
    """
    folder = Path(folder)
    if not (folder / "recipe.yaml").is_file():
        raise MissingError(f"{folder} is not a run: it has no recipe.yaml. Name the folder that training printed.")
    recipe = recipe or recipe_of(folder)
    then = Run.open(folder).recipe
    now = {**recipe.resolved(), "out": then.get("out")}  # a folder may have been moved
    with Run.resume(folder, now, targets=recipe.frame.log, keep_last=recipe.frame.save.keep) as run:
        begun = any(step > 0 for step in run.checkpoints)
        if begun and not recipe.needs_start and not recipe.model["lora"]:
            policy, warmed = recipe.load_policy(), dict[str, float]()  # every weight comes from the checkpoint
        else:
            policy, warmed = warmed_policy(recipe, show)
        return _train(recipe, run, policy, Examiner(recipe=recipe, run=run, warmed=warmed), show)


def recipe_of(folder: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe a run was made with.

    Raises:
        InputError: the run was made in Python, and what stands in its recipe names no model and no task.
    """
    run = Run.open(folder)
    if "model" not in run.recipe or "task" not in run.recipe:
        raise InputError(
            f"{folder} was made in Python, so it does not say what its model and its task are. Make the policy as you "
            f"did then, and load its weights: Run.open({str(folder)!r}).load({{'policy': policy}}, 'last')."
        )
    return Recipe.load(Path(folder) / "recipe.yaml", overrides)


def task_of(folder: str | Path) -> Task | None:
    """The task that a run was made with; None for one made in Python, which does not say.

    Raises:
        MissingError: there is no run.
    """
    recipe = Run.open(folder).recipe
    return recipe_of(folder).made_task if "model" in recipe and "task" in recipe else None


def load_run(
    folder: str | Path, step: int | Literal["last", "best"] = "best", recipe: Recipe | None = None
) -> LanguageModel:
    """The policy of a run, as a checkpoint has it.

    Args:
        folder: the run's.
        step: which checkpoint.
        recipe: the run's own, possibly with other `sampling`; read from the run if left out.

    Raises:
        MissingError: there is no run, or no such checkpoint.
    """
    run = Run.open(folder)
    recipe = recipe or recipe_of(folder)
    # A checkpoint holds the trained weights: with adapters, what they stand on must be made again.
    policy = warmed_policy(recipe, "nothing")[0] if recipe.model["lora"] else recipe.load_policy()
    run.load({"policy": policy}, step)
    return policy


def load_critic(
    folder: str | Path, step: int | Literal["last", "best"] = "best", recipe: Recipe | None = None
) -> LanguageModel | None:
    """The critic of its own of a run, as a checkpoint has it; None where the policy was its own, or there was none.

    Args:
        folder: the run's.
        step: which checkpoint.
        recipe: the run's own; read from the run if left out.

    Raises:
        MissingError: there is no run, or no such checkpoint.
    """
    run = Run.open(folder)
    recipe = recipe or recipe_of(folder)
    if recipe.critic is None:
        return None
    policy = warmed_policy(recipe, "nothing")[0] if recipe.model["lora"] else recipe.load_policy()
    advantage = recipe.build_advantage(policy)
    run.load({"advantage": advantage}, step)  # the part that teaches a critic keeps it
    return cast("LanguageModel | None", getattr(advantage, "critic", None))


def warmed_policy(recipe: Recipe, show: Show = "auto") -> tuple[LanguageModel, Metrics]:
    """The policy that training starts from, and what its warm-up measured ({} without one).

    The warm-up trains all weights, also where training will use adapters, and leaves no trace in the optimizer.
    """
    from reckon.fit import sft
    from reckon.models import LanguageModel, load_model

    warmup = recipe.frame.warmup
    if warmup is None:
        return recipe.load_policy(), {}
    given = dict(recipe.model)
    name, lora = given.pop("name"), given.pop("lora")
    optimizer = replace(recipe.optimizer, lr=warmup.lr, schedule="constant", warmup=0, total=None)
    model = load_model(name, sampling=recipe.sampling, optimizer=optimizer, **given)  # type: ignore[arg-type]
    problems = list(recipe.made_task.problems("train")[: warmup.examples])
    solutions = [cast("Worked", recipe.made_task).solution(problem) for problem in problems]
    steps = warmup.epochs * -(-len(problems) // warmup.batch)
    with Progress(steps, unit="warm-up step", show=show) as bar:
        metrics = sft(
            model,
            problems,
            solutions,
            Rng((recipe.frame.seed, "warmup")),
            epochs=warmup.epochs,
            batch=warmup.batch,
            told=lambda done, total, step: bar.update(done, f"loss {step['policy/loss']:.2f}"),
        )
    policy = LanguageModel(
        model.network,
        model.tokenizer,
        sampling=recipe.sampling,
        optimizer=recipe.optimizer,
        lora=lora,  # type: ignore[arg-type]
        value_head=recipe.has_value_head,
        **given,  # type: ignore[arg-type]
    )
    return policy, metrics


def write_evaluation(found: Evaluation, path: str | Path) -> None:
    """Writes an evaluation's answers as the table that `read_evaluation` reads.

    Raises:
        RunError: no room, no permission.
    """
    write_table(Path(path), make_table(found.columns(), EVALUATIONS))


def read_evaluation(path: str | Path) -> Evaluation:
    """An evaluation from the table that a run or `reckon eval --out` keeps of it.

    Raises:
        MissingError: there is no such file.
        InputError: it is no such table.
    """
    import pyarrow
    import pyarrow.parquet
    import pydantic

    if not Path(path).is_file():
        raise MissingError(f"There is no table {path}. A run keeps its evaluations in RUN/evals.")
    names = [f.name for f in fields(Response) if f.name != "streams"]
    try:
        rows = pyarrow.parquet.read_table(path, columns=names).to_pylist()
        return Evaluation(responses=pydantic.TypeAdapter(tuple[Response, ...]).validate_python(rows))
    except (pyarrow.ArrowException, OSError) as error:  # a damaged table is the one or the other
        raise InputError(f"{path} is not a table of evaluated answers: {str(error).splitlines()[0]}") from error
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        row, *column = fault["loc"]
        place = f"row {row}, column {'.'.join(map(str, column))}"
        raise InputError(f"{path} is not a table of evaluated answers: {place}: {fault['msg']}.") from error


def _train(recipe: Recipe, run: Run, policy: LanguageModel, examiner: Examiner, show: Show) -> Outcome:
    from reckon.train import Plan, train

    frame = recipe.frame
    plan = Plan(
        steps=frame.steps,
        prompts=frame.prompts,
        answers=frame.answers,
        seed=frame.seed,
        save_every=frame.save.every,
        show=show,
    )
    examiner.reward = recipe.build_eval_reward(policy)
    if isinstance(examiner.reward, Stateful):
        # A judge that begins as the policy does so when it is first asked for what it knows: here, before any training,
        # and not at the first evaluation, which after a resume is one of a policy that has learned.
        examiner.reward.state_dict()
    with stoppable() as stop:
        finished = train(policy, recipe.made_task, recipe.build(policy), run, plan, examiner)
    return Outcome(
        folder=run.folder,
        steps=max(run.checkpoints, default=0),
        finished=finished,
        comparison=_before_and_after(run, frame) if finished else None,
        # Where no token trains, as while the policy waits for its judges, nothing is said of the size of advantages.
        idle=sum(line.get("advantage/mean_abs") == 0 for line in run.metrics()),
        stopped=None if finished else stop.reason,
    )


def _before_and_after(run: Run, frame: Frame) -> Comparison | None:
    """The final split before the first step and after the last, if problems have the one known verdict it takes."""
    plan = frame.evaluate
    if plan is None or plan.final is None or (plan.k > 1 and not plan.greedy):
        return None
    tables = [run.folder / "evals" / f"{plan.final}-step-{step:06}.parquet" for step in (0, frame.steps)]
    first, last = read_evaluation(tables[0]), read_evaluation(tables[1])
    known = [{r.problem for r in found.responses if r.outcome is not None} for found in (first, last)]
    return compare(first, last) if known[0] & known[1] else None  # of data without answers nothing can be said
