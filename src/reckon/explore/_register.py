"""The worlds' names in Gymnasium's registry."""

from __future__ import annotations

import gymnasium

from reckon.explore._worlds import WORLDS

IDS = tuple(f"reckon/{name}-v0" for name in WORLDS)


def register() -> None:
    """Makes the worlds known to `gymnasium.make` and `gymnasium.make_vec`, as reckon/LavaTrail-v0 and so on."""
    for name, id_ in zip(WORLDS, IDS, strict=True):
        if id_ not in gymnasium.registry:
            gymnasium.register(
                id_,
                entry_point="reckon.explore._environments:WorldEnv",
                vector_entry_point="reckon.explore._environments:WorldVector",
                kwargs={"world": name},
            )
