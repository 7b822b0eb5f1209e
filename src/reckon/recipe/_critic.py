"""A critic of its own, as a recipe describes it: which model it starts from and how it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from reckon.recipe._document import Document, Keys
from reckon.recipe._settings import construct, known, mapping, plain, settings
from reckon.types import Json

if TYPE_CHECKING:
    from reckon.models import LanguageModel, Optimization

KEYS: Keys = ("critic",)
_NOT_SET = (
    "sampling",
    "optimizer",
    "value_head",
)  # of a model: the first is the policy's, the last goes without saying


@dataclass(frozen=True, kw_only=True)
class OwnCritic:
    """A model beside the policy that learns to say what a response will earn."""

    model: Mapping[str, object] | None  # the settings of `models.load_model`; None = a copy of the policy
    optimizer: Optimization

    def plain(self) -> dict[str, Json]:
        """As a recipe would write it."""
        optimizer = plain(self.optimizer)
        assert isinstance(optimizer, dict)
        del optimizer["total"]
        model = {} if self.model is None else {name: plain(value) for name, value in self.model.items()}
        return {**model, "optimizer": optimizer}

    def build(self, document: Document, policy: LanguageModel) -> LanguageModel:
        """Opens it. A copy is of the policy as it is at this moment, with a value head that says 0 everywhere.

        Raises:
            MissingError: there is no such model.
            InputError: its tokens are not those of the policy.
        """
        from reckon.models import load_model

        if self.model is None:
            return policy.twin(self.optimizer, value_head=True)
        given = {**self.model, "optimizer": self.optimizer, "sampling": policy.sampling, "value_head": True}
        critic = cast("LanguageModel", construct(document, KEYS, load_model, given))
        if critic.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise document.error(
                (*KEYS, "name"),
                f"`critic.name` is {self.model['name']}, whose tokens are others than the policy's, and a critic reads "
                "the very tokens that the policy writes. Take a model of the policy's family, or leave the name out.",
            )
        return critic


def read_critic(
    document: Document,
    value: Json,
    *,
    read_model: Callable[[Keys, Json], dict[str, object]],
    read_optimizer: Callable[[Keys, Json], Optimization],
) -> OwnCritic | None:
    """Checks the key `critic`; without it the critic is the policy's own value head.

    Raises:
        InputError: a setting that is unknown or of the wrong type, or one of a model that is not named.
    """
    from reckon.models import load_model

    if value is None:
        return None
    given = dict(mapping(document, KEYS, value, "a mapping of settings (name, optimizer, ...)"))
    optimizer = read_optimizer((*KEYS, "optimizer"), given.pop("optimizer", {}))
    choices = [name for name in settings(load_model) if name not in _NOT_SET]
    known(document, KEYS, given, [*choices, "optimizer"], "`critic`")
    if "name" in given:
        return OwnCritic(model=read_model(KEYS, given), optimizer=optimizer)
    for name in given:
        raise document.error(
            (*KEYS, name),
            f"`critic.{name}` is a setting of a model that is named. A critic without a `name` is a copy of the "
            f"policy, made as the policy is. Name one, or leave `{name}` out.",
        )
    return OwnCritic(model=None, optimizer=optimizer)
