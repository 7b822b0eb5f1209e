"""A whole recipe: read, checked, resolved and built."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, cast

from reckon.recipe._critic import OwnCritic, read_critic
from reckon.recipe._document import Document, Keys, did_you_mean, parse, read
from reckon.recipe._kinds import Role, Target
from reckon.recipe._many import Named, build_objective, build_reward, many_of, read_many
from reckon.recipe._parts import Later, Part, needs, part_of, plain_with_parts, read_part, try_out
from reckon.recipe._schema import Evaluate, Frame, Save
from reckon.recipe._settings import (
    arguments,
    construct,
    dotted,
    known,
    located,
    mapping,
    plain,
    section,
    settings,
    shown,
)
from reckon.runs import recipe_text
from reckon.types import Advantage, Json, Judges, Parts, Refill, Task, Worked

if TYPE_CHECKING:
    from reckon.models import LanguageModel, Optimization, Sampling

METHOD = "grpo"  # where a recipe names none
ROUNDS = 8  # draws for one batch where a keep rule drops groups
_ONE: tuple[Role, ...] = ("sampler", "keep", "advantage")
_NOT_SET = ("total", "value_head")  # of an optimizer and a model, and no settings of a recipe
_SECTIONS = ("refill", "sampling", "optimizer", "critic")
_KEYS = ("model", "method", "task", *_ONE, "reward", "objective", "eval_reward", *_SECTIONS)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe in which every name, type and value that can be checked without the model has been checked."""

    document: Document
    model: Mapping[str, object]  # the settings of `models.load_model`
    method: Mapping[str, object]  # its kind and its settings
    task: Part
    sampler: Part
    keep: Part
    reward: Mapping[str, Named]
    advantage: Part
    objective: Mapping[str, Named]
    eval_reward: Mapping[str, Named]
    refill: Refill
    sampling: Sampling
    optimizer: Optimization
    critic: OwnCritic | None  # None = the policy's own value head, where a part asks for a critic
    frame: Frame
    made_task: Task

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """Reads a recipe's file, applies `key.sub=value` overrides, and checks everything.

        Raises:
            MissingError: there is no such file.
            InputError: a key, kind or value that cannot be used; names the file, the line, the key and the nearest
                right one.
        """
        return cls._check(read(Path(path)), overrides)

    @classmethod
    def parse(cls, text: str, overrides: Iterable[str] = (), *, name: str = "recipe") -> Recipe:
        """As `load`, from a recipe's text; relative paths begin in the current folder."""
        return cls._check(parse(text, name=name), overrides)

    @classmethod
    def _check(cls, document: Document, overrides: Iterable[str]) -> Recipe:
        from reckon.models import Optimization, Sampling
        from reckon.samplers import Uniform

        for override in overrides:
            document.override(override)
        given = document.values
        plan_keys = [f.name for f in fields(Frame)]
        _at_home(document, [*_KEYS, *plan_keys])
        known(document, (), given, [*_KEYS, *plan_keys], "a recipe")
        for key in ("model", "task"):
            if key not in given:
                raise document.error((), f"the recipe has no `{key}`. Add it, for example {_EXAMPLES[key]}.")
        frame = _frame(document, {key: given[key] for key in plan_keys if key in given})
        optimizer = _optimizer(document, ("optimizer",), given.get("optimizer", {}), Optimization, frame)
        critic = read_critic(
            document,
            given.get("critic"),
            read_model=lambda keys, value: _model(document, value, keys),
            read_optimizer=lambda keys, value: _optimizer(
                document, keys, value, Optimization, frame, base=vars(optimizer)
            ),
        )
        task = read_part(document, ("task",), "task", given["task"])
        made = cast("Task", task.build(document, {}))
        construct(document, ("task",), Uniform, {"task": made})  # the method's own would tell a fault of it as its own
        sampling = cast("Sampling", _made(document, "sampling", given.get("sampling", {}), Sampling))
        method, preset = _preset(
            document, given.get("method", METHOD), made, sampling.max_new_tokens, own_critic=critic is not None
        )
        one = {
            role: read_part(document, (role,), role, given[role], part_of(role, getattr(preset, role), (role,)))
            if role in given
            else part_of(role, getattr(preset, role), (role,))
            for role in _ONE
        }
        # A rule that drops groups is followed by another draw, unless the recipe says otherwise.
        drops = one["keep"].kind != "all" and preset.refill == Refill()
        base = {"rounds": ROUNDS} if drops else vars(preset.refill)
        _check_plan(document, made, frame)
        recipe = cls(
            document=document,
            model=_model(document, given["model"]),
            method=method,
            task=task,
            **one,
            reward=read_many(document, "reward", given.get("reward"), many_of("reward", preset.reward)),
            objective=read_many(document, "objective", given.get("objective"), many_of("objective", preset.objective)),
            eval_reward=read_many(document, "reward", given.get("eval_reward"), {}, at=("eval_reward",)),
            refill=cast("Refill", _made(document, "refill", given.get("refill", {}), Refill, base)),
            sampling=sampling,
            optimizer=optimizer,
            critic=critic,
            frame=frame,
            made_task=made,
        )
        for part in recipe._parts():
            try_out(part, document, made)
        _check_streams(recipe)
        return recipe

    def _parts(self) -> list[Part]:
        shared = (*self.reward.values(), *self.objective.values(), *self.eval_reward.values())
        return [*(getattr(self, role) for role in _ONE), *(entry.part for entry in shared)]

    @property
    def name(self) -> str:
        """The recipe's file name without its ending."""
        return Path(self.document.name).stem

    @property
    def out(self) -> Path:
        """The folder a run of this recipe goes to, unless another is asked for."""
        return Path(self.frame.out.replace("{name}", self.name))

    def resolved(self) -> dict[str, Json]:
        """Every setting with its value, defaults filled in: what a run stores. Loading it gives the same recipe."""
        plan = {f.name: plain(getattr(self.frame, f.name)) for f in fields(Frame)}
        if self.frame.sync_reference is None:
            del plan["sync_reference"]
        optimizer = plain(self.optimizer)
        assert isinstance(optimizer, dict)
        del optimizer["total"]  # follows from steps, epochs and minibatches
        return {
            "model": plain_with_parts(self.model),
            "method": plain_with_parts(self.method),
            "task": self.task.plain(),
            "sampler": self.sampler.plain(),
            "keep": self.keep.plain(),
            "refill": plain(self.refill),
            "reward": {name: entry.plain() for name, entry in self.reward.items()},
            "advantage": self.advantage.plain(),
            "objective": {name: entry.plain() for name, entry in self.objective.items()},
            **({"eval_reward": {k: v.plain() for k, v in self.eval_reward.items()}} if self.eval_reward else {}),
            "sampling": plain(self.sampling),
            "optimizer": optimizer,
            **({"critic": self.critic.plain()} if self.critic is not None else {}),
            **plan,
            "out": str(self.out),
        }

    def to_yaml(self) -> str:
        """`resolved` as text."""
        return recipe_text(self.resolved())

    @property
    def needs_reference(self) -> bool:
        """Whether some part compares with the model as it was before training."""
        return any(needs(part, "reference") for part in self._parts())

    @property
    def needs_start(self) -> bool:
        """Whether a resume needs the model as it was before training: the run's checkpoints do not hold it.

        A reference is that model, and so is what a judge of evaluations may begin as, which never learns.
        """
        return self.needs_reference or any(needs(entry.part, "policy") for entry in self.eval_reward.values())

    @property
    def has_value_head(self) -> bool:
        """Whether the policy is its own critic."""
        return self.critic is None and any(needs(part, "critic") for part in self._parts())

    def check_training(self) -> None:
        """What training needs and an evaluation of the same recipe does not.

        Raises:
            InputError: no reward trains; a critic that nobody asks or teaches; a reference that moves for nobody; or
                top-k, top-p or min-p together with an objective that has a probability ratio, which needs the
                probabilities that the sampler drew from.
        """
        self._check_critic()
        if self.frame.sync_reference is not None and not self.needs_reference:
            raise self.document.error(
                ("sync_reference",),
                "`sync_reference` moves a reference, and no part compares with one. Leave it out, or take a part that "
                "does, such as `method: {kind: grpo, kl: 0.04}`.",
            )
        if not any(entry.weight and not entry.watch for entry in self.reward.values()):
            raise self.document.error(
                ("reward",),
                f"`reward` has nothing to learn from: {', '.join(self.reward)} is watched or weighs 0. Where one part "
                "has a kind the mapping is the whole list, so name the method's too (`correct: verifier`).",
            )
        ratios = [
            entry.part.kind
            for entry in self.objective.values()
            if entry.part.kind == "clipped_ratio" and entry.part.settings["old"] == "rollout"
        ]
        for name in ("top_k", "top_p", "min_p"):
            if ratios and type(self.sampling)(**{name: getattr(self.sampling, name)}).truncated:
                raise self.document.error(
                    ("sampling", name),
                    f"`sampling.{name}` cuts off tokens, and {ratios[0]} compares with the probabilities that the "
                    "sampler drew from. Leave it out, or take an objective without a ratio, such as policy_gradient.",
                )

    def _check_critic(self) -> None:
        asked = any(needs(part, "critic") for part in self._parts())
        taught = any(entry.part.kind == "value_loss" for entry in self.objective.values())
        learns = self.advantage.settings.get("learn") is not None
        if self.critic is not None and not asked:
            raise self.document.error(
                ("critic",), "`critic` is a model that no part asks. Take `advantage: gae`, or leave `critic` out."
            )
        if self.critic is not None and not learns:
            raise self.document.error(
                ("critic",),
                "`critic` is a model of its own, and nothing teaches it. Write `advantage: {kind: gae, learn: "
                "value_loss}`, or leave `critic` out and let the policy be its own.",
            )
        if asked and self.critic is None and (learns or not taught):
            raise self.document.error(
                ("advantage",),
                "`advantage` asks the policy's own value head, which "
                + ("learns with the policy and not by `advantage.learn`. " if learns else "nothing teaches. ")
                + "Put a `value_loss` among the objectives, or give a `critic`, a model of its own"
                + (", and keep `learn`." if learns else "."),
            )

    def load_policy(self) -> LanguageModel:
        """Loads the model, the first thing a recipe does that takes time; not warmed up.

        Raises:
            MissingError: there is no such model, or no network to fetch it.
        """
        from reckon.models import load_model

        given = {
            **self.model,
            "sampling": self.sampling,
            "optimizer": self.optimizer,
            "value_head": self.has_value_head,
        }
        return cast("LanguageModel", construct(self.document, ("model",), load_model, given))

    def build(self, policy: LanguageModel) -> Parts:
        """Makes the parts, giving each the task, policy, reference and tokenizer it asks for.

        A reference is the policy as it is at this moment, so call this after any warm-up.
        """
        given = self._given(policy)
        made = {role: getattr(self, role).build(self.document, given) for role in _ONE}
        return Parts(
            **made,
            refill=self.refill,
            reward=build_reward(self.reward, self.document, given),
            objective=build_objective(self.objective, self.document, given),
        )

    def build_eval_reward(self, policy: LanguageModel) -> Judges | None:
        """What judges the answers of evaluations beside the checker, made like the other parts; None = nothing."""
        return build_reward(self.eval_reward, self.document, self._given(policy)) if self.eval_reward else None

    def build_advantage(self, policy: LanguageModel) -> Advantage:
        """The advantage alone, and with it the critic that it asks for."""
        return cast("Advantage", self.advantage.build(self.document, self._given(policy)))

    def _given(self, policy: LanguageModel) -> dict[str, Callable[[], object]]:
        """What parts may ask for. Reference and critic are made when the first part asks, and shared."""

        @functools.cache
        def reference() -> object:
            sync = self.frame.sync_reference
            return (
                policy.reference() if sync is None else policy.reference(sync_every=sync.every, sync_alpha=sync.alpha)
            )

        @functools.cache
        def critic() -> object:
            return policy if self.critic is None else self.critic.build(self.document, policy)

        return {
            "task": lambda: self.made_task,
            "policy": lambda: policy,
            "reference": reference,
            "critic": critic,
            "tokenizer": lambda: policy.tokenizer,
        }


_EXAMPLES = {"model": "`model: smollm2-135m`", "task": "`task: {kind: largest, count: 5}` (see `reckon tasks`)"}


def _frame(document: Document, given: dict[str, Json]) -> Frame:
    return cast("Frame", construct(document, (), Frame, section(document, (), given, Frame, "a recipe")))


def _at_home(document: Document, known_keys: Sequence[str]) -> None:
    """Raises InputError for a setting at the top that belongs in a section: `lr` for `optimizer.lr`."""
    from reckon.models import Optimization, Sampling, load_model

    sections: dict[str, Target] = {"optimizer": Optimization, "sampling": Sampling, "model": load_model}
    sections |= {"evaluate": Evaluate, "save": Save}
    for key in document.values:
        homes = [name for name, target in sections.items() if key in settings(target)]
        if homes and key not in (*known_keys, *_NOT_SET):
            meant = " or ".join(f"`{home}.{key}`" for home in homes)
            raise document.error((key,), f"`{key}` is not a setting of a recipe by itself. Write {meant}.")


def _check_plan(document: Document, task: Task, frame: Frame) -> None:
    """What the task must have for the warm-up and the evaluations that are planned."""
    if frame.warmup is not None and not isinstance(task, Worked):
        raise document.error(
            ("warmup",), f"`warmup` shows worked solutions, and the task '{task.name}' has none. Leave `warmup` out."
        )
    for key in ("split", "final"):
        split = None if frame.evaluate is None else getattr(frame.evaluate, key)
        if split is not None and not task.problems(split):
            raise document.error(
                ("evaluate", key),
                f"`evaluate.{key}` is {split}, and the task '{task.name}' has no problems in that split. Give it some, "
                f"choose another split, or write `evaluate: null`.",
            )


def _check_streams(recipe: Recipe) -> None:
    """Raises InputError where settings by stream name a reward that there is not: a stream is NAME or NAME/KEY."""
    if recipe.advantage.kind != "streamwise":
        return
    for setting in ("weights", "gammas"):
        for stream in cast("Mapping[str, float]", recipe.advantage.settings[setting]):
            name = stream.partition("/")[0]
            if name not in recipe.reward:
                near = did_you_mean(name, list(recipe.reward), "rewards")
                raise recipe.document.error(
                    ("advantage", setting, stream),
                    f"`advantage.{setting}` names {stream!r}, but there is no reward {name!r}. {near}",
                )


def _made(
    document: Document, key: str, value: Json, target: Target, base: Mapping[str, object] | None = None
) -> object:
    values = section(document, (key,), value, target, f"`{key}`", base=base)
    return construct(document, (key,), target, values)


def _optimizer(
    document: Document,
    keys: Keys,
    value: Json,
    target: Callable[..., Optimization],
    frame: Frame,
    base: Mapping[str, object] | None = None,
) -> Optimization:
    name = dotted(keys)
    values = section(document, keys, value, target, f"`{name}`", base=base, without=("total",))
    epochs, minibatches = cast("int", values["epochs"]), cast("int", values["minibatches"])
    if minibatches > frame.prompts:
        raise document.error(
            (*keys, "minibatches"),
            f"`{name}.minibatches` is {minibatches}, but a step has only {frame.prompts} `prompts`, and "
            "mini-batches are cut between them. Lower it, or ask for more prompts.",
        )
    total = max(1, frame.steps * epochs * minibatches)
    return cast("Optimization", construct(document, keys, target, {**values, "total": total}))


def read_model(name: str, overrides: Iterable[str] = ()) -> Callable[[], LanguageModel]:
    """A function that loads a model with `model.key=value` and `sampling.key=value` settings, which are checked now.

    Raises:
        InputError: a setting that cannot be used.
    """
    from reckon.models import Sampling, load_model

    document = Document(name="command line", values={"model": {"name": name}})
    for override in overrides:
        document.override(override)
    known(document, (), document.values, ["model", "sampling"], "a model")
    given = _model(document, document.values["model"])
    sampling = _made(document, "sampling", document.values.get("sampling", {}), Sampling)
    return lambda: cast("LanguageModel", construct(document, ("model",), load_model, {**given, "sampling": sampling}))


def _model(document: Document, value: Json, keys: Keys = ("model",)) -> dict[str, object]:
    from reckon.models import BUILT_IN, load_model

    given: Json = {"name": value} if isinstance(value, str) else value
    without = ("sampling", "optimizer", "value_head")  # sections of their own, and what goes without saying
    values = section(document, keys, given, load_model, f"`{dotted(keys)}`", without=without)
    name = str(values["name"])
    if name and name not in BUILT_IN and located(document, name).is_dir():
        values["name"] = str(located(document, name).absolute())
    return values


def _preset(
    document: Document, value: Json, task: Task, limit: int, *, own_critic: bool
) -> tuple[dict[str, object], Parts]:
    """The method's name and settings, and the parts it makes; methods that ask for the `limit` of tokens are told."""
    from reckon.methods import METHODS

    given: dict[str, Json] = (
        {"kind": value} if isinstance(value, str) else dict(mapping(document, ("method",), value, "a method's name"))
    )
    kind = given.pop("kind", METHOD)
    if not isinstance(kind, str) or kind not in METHODS:
        near = did_you_mean(str(kind), list(METHODS), "methods")
        raise document.error(("method",), f"there is no method {shown(kind)}. {near}")
    values = section(document, ("method",), given, METHODS[kind], f"'{kind}'", base={"limit": limit})
    later = {a.name: Later() for a in arguments(METHODS[kind]) if a.name in ("policy", "reference")}
    if own_critic and any(a.name == "critic" for a in arguments(METHODS[kind])):
        later["critic"] = Later()
    made = construct(document, ("method",), METHODS[kind], {**values, "task": task, **later})
    return {"kind": kind, **values}, cast("Parts", made)
