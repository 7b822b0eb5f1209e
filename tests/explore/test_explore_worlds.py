"""Worlds: walked by hand, their values against all ways there are, and maps that are what they say."""

import itertools

import numpy as np
import pytest
from explore_worlds import DOWN, LEFT, RIGHT, UP, corner, maps_of, small_star, walk

from reckon.errors import InputError
from reckon.explore import GridWorld, lava_trail, rooms, shared_structure, star
from reckon.explore._episodes import Episodes
from reckon.explore._maps import FLOOR, GOAL, LAVA, draw_trails

# Walked by hand


def test_a_grid_walked_by_hand():
    # Columns 0 to 4, rows 0 to 3; a cell is row * 5 + column. The start is 6, the goal 8.
    assert walk(corner(), [RIGHT, RIGHT]) == [(7, 0.0, False), (8, 1.0, True)]
    assert walk(corner(), [UP, LEFT]) == [(6, 0.0, False), (5, 0.0, True)]  # a wall, then lava
    assert walk(corner(), [DOWN, DOWN]) == [(11, 0.0, False), (16, 0.0, True)]


def test_what_a_grid_shows_at_each_step():
    world = corner()
    episodes = Episodes(world, 1)
    episodes.begin(np.arange(1))
    blocked, visited, goal = [1, 1, 1, 1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0, 0], [0] * 9
    column, row = [0, 1, 0, 0, 0], [0, 1, 0, 0]
    assert episodes.observe()[0].tolist() == [*blocked, *visited, *goal, *column, *row]
    episodes.step(np.array([RIGHT]))
    blocked, visited = [1, 1, 1, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0, 0]
    goal, column = [0, 0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0]
    assert episodes.observe()[0].tolist() == [*blocked, *visited, *goal, *column, *row]
    episodes.step(np.array([LEFT]))
    episodes.step(np.array([DOWN]))
    visited = [0, 1, 1, 0, 1, 0, 0, 0, 0]  # (1, 1) and (2, 1) above where it is, (1, 2)
    assert episodes.observe()[0, 9:18].tolist() == visited
    assert episodes.observe()[0].dtype == np.float32


def test_what_is_beyond_the_border_is_blocked():
    seen = corner(sight=2).observe(np.array([0]), np.array([6]), np.zeros((1, 8 * 9), dtype=bool))
    assert seen.shape == (1, 3 * 25 + 9)
    assert seen[0, :25].reshape(5, 5).tolist() == [
        [1, 1, 1, 1, 1],  # row -1
        [1, 1, 1, 1, 1],
        [1, 1, 0, 0, 0],  # column -1 is no column
        [1, 1, 0, 1, 1],
        [1, 1, 1, 1, 1],
    ]


def test_time_is_up_after_the_horizon_but_not_where_the_task_was_over():
    episodes = Episodes(corner(horizon=2), 2)
    episodes.begin(np.arange(2))
    assert [x.tolist() for x in episodes.step(np.array([RIGHT, UP]))] == [[0.0, 0.0], [False, False], [False, False]]
    assert [x.tolist() for x in episodes.step(np.array([RIGHT, UP]))] == [[1.0, 0.0], [True, False], [False, True]]


def test_a_star_walked_by_hand():
    # The hub is 0, corridor m has 1 + 2 m and 2 + 2 m; whoever goes wrong is at 7.
    assert walk(small_star(), [1, 2]) == [(3, 0.0, False), (4, 1.0, True)]
    assert walk(small_star(), [0, 2]) == [(1, 0.0, False), (2, 0.0, True)]
    assert walk(small_star(), [2, 0]) == [(5, 0.0, False), (7, 0.0, True)]
    world = small_star()
    seen = world.observe(np.zeros(3, int), np.array([0, 4, 7]), np.zeros((3, 8), bool))
    assert seen.tolist() == [[1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0], [0] * 7]
    assert world.places(np.array([0, 3, 4, 7])).tolist() == [[1, 0], [1, 1], [1, 2], [-1, -1]]
    assert world.drawing(0) == [" . ", "...", ".G."]


# Values


def best_by_trying(world, context, position, gamma, most=7):
    """gamma^moves to the reward by the best of all ways of at most `most` moves; 0 if none leads there."""
    best = 0.0
    for length in range(1, most + 1):
        ways = np.array(list(itertools.product(range(world.actions), repeat=length)))
        at, over = np.full(len(ways), position), np.zeros(len(ways), dtype=bool)
        for move in ways.T:
            after, reward, ended = world.move(np.full(len(ways), context), np.where(over, position, at), move)
            if ((reward > 0) & ~over).any():
                return gamma**length
            at, over = np.where(over, at, after), over | ended
    return best


@pytest.mark.parametrize("world", [corner(), small_star()], ids=["grid", "star"])
def test_values_are_those_of_the_best_of_all_ways(world):
    table = world.table(0.9)
    ends = 0
    for value, context, position in zip(table.values, table.contexts, table.keys["pos"], strict=True):
        if value == 1.0 or (world.actions == 3 and position in (2, 6)):  # where it ended: nobody goes on from there
            ends += 1
            continue
        assert value == pytest.approx(best_by_trying(world, context, position, 0.9, most=4))
    assert ends == (1 if world.actions == 4 else 3)


def test_a_grids_table_by_hand():
    table = corner().table(0.5)
    assert dict(zip(table.keys["pos"].tolist(), table.values.tolist(), strict=True)) == {
        6: 0.25, 7: 0.5, 8: 1.0, 11: 0.125
    }  # fmt: skip
    assert table.contexts.tolist() == [0] * 4


def test_a_stars_table_by_hand():
    table = small_star().table(0.5)
    assert table.values.tolist() == [0.25, 0, 0, 0.5, 1.0, 0, 0]  # hub; three corridors of two


def test_what_is_behind_the_goal_cannot_be_come_to():
    world = GridWorld(maps_of("~~~~~ ~SG.~ ~~~~~"), horizon=5)
    assert world.table(0.9).keys["pos"].tolist() == [6, 7]


def test_the_best_play_of_a_trail_earns_what_its_table_says():
    world = lava_trail(5)
    values = np.zeros((5, 13 * 13))
    table = world.table(0.99)
    values[table.contexts, table.keys["pos"]] = table.values
    context = np.arange(5)
    position, worth = world.start.copy(), np.zeros(5)
    for move in range(1, 24):
        ahead = position[:, None] + np.array([-13, 1, 13, -1])
        action = values[context[:, None], ahead].argmax(axis=1)
        position, reward, over = world.move(context, position, action)
        assert over.all() == (move == 23)
        worth += 0.99**move * reward
    np.testing.assert_allclose(worth, values[context, world.start], rtol=1e-12)
    np.testing.assert_allclose(worth, 0.99**23, rtol=1e-12)


# Maps


def test_trails_never_touch_themselves():
    trails = draw_trails(200, np.random.default_rng(3))
    assert trails.shape == (200, 24)
    for trail in trails:
        y, x = np.divmod(trail, 13)
        assert y.min() >= 1
        assert x.min() >= 1
        assert max(y.max(), x.max()) <= 11
        near = (abs(y[:, None] - y) + abs(x[:, None] - x)) == 1
        assert near.tolist() == [[abs(i - j) == 1 for j in range(24)] for i in range(24)]


def test_the_first_trails_are_the_same_in_any_number():
    few, many = (draw_trails(n, np.random.default_rng(1), size=9, length=10) for n in (3, 1500))
    assert few.tolist() == many[:3].tolist()
    assert len(np.unique(many, axis=0)) > 1000  # there are not many in so small a grid


def test_trails_go_on_as_they_went_as_often_as_they_shall():
    """Where there is a choice: of short trails in a large grid nearly always, so that rejection hardly matters."""
    straight = {}
    for share in (0.0, 0.6, 1.0):
        trails = draw_trails(3000, np.random.default_rng(0), size=101, length=3, straight=share)
        moves = np.diff(trails, axis=1)
        straight[share] = float((moves[:, 1] == moves[:, 0]).mean())
    # A second cell has three free neighbors ahead of it, so a free draw goes straight on one time in three.
    assert straight[0.0] == pytest.approx(1 / 3, abs=0.03)
    assert straight[0.6] == pytest.approx(0.6 + 0.4 / 3, abs=0.03)
    assert straight[1.0] > 0.98  # all but those that come to the border


def test_a_lava_trail_says_how_far_one_has_come():
    world = lava_trail(4, maps_seed=2)
    assert (world.observation_size, world.actions, world.horizon, world.contexts) == (101, 4, 36, 4)
    trails = draw_trails(4, np.random.default_rng(2))
    for context, trail in enumerate(trails):
        said = world.keys(np.full(24, context), trail)
        assert said["pos"].tolist() == trail.tolist()
        expected = [0] * 24
        expected[6], expected[12], expected[18], expected[23] = 1, 2, 3, 4
        assert said["msg"].tolist() == expected
        assert world.start[context] == trail[0]
        drawn = "".join(world.drawing(context))
        assert drawn[trail[-1]] == "G"
        assert drawn.count(".") == 23
        assert drawn.count("~") == 169 - 24


@pytest.mark.parametrize(("walls", "sign"), [("wall", "#"), ("lava", "~")])
def test_rooms_have_one_door_between_each_two(walls, sign):
    world = rooms(50, rooms=3, size=4, walls=walls, maps_seed=1)
    doors = set()
    for context in range(50):
        drawn = world.drawing(context)
        assert len(drawn) == 6
        assert {len(row) for row in drawn} == {16}
        for door in (5, 10):
            column = [row[door] for row in drawn]
            assert column.count(".") == 1
            assert column.count(sign) == 5
            doors.add((door, column.index(".")))
        assert "".join(drawn).count("G") == 1
        assert any("G" in row[11:15] for row in drawn)
        y, x = divmod(int(world.start[context]), 16)
        assert 1 <= x <= 4
        assert 1 <= y <= 4
    assert len(doors) == 8  # any of four heights, at either wall
    table = world.table(0.99)
    assert (table.values > 0).all()  # the goal can be come to from everywhere
    spoken = table.keys["msg"]
    assert sorted(np.unique(spoken)) == [0, 1, 2, 3]
    assert [(spoken == k).sum() for k in (1, 2, 3)] == [50, 50, 50]


def test_rooms_of_one_cell_are_a_corridor():
    assert rooms(1, rooms=3, size=1).drawing(0) == ["#######", "#....G#", "#######"]


def test_rooms_walked_by_hand():
    world = rooms(1, rooms=2, size=1, walls="lava")  # ~..G~: a room, a door, a room
    assert world.start.tolist() == [6]
    assert walk(world, [RIGHT, RIGHT]) == [(7, 0.0, False), (8, 1.0, True)]
    assert walk(world, [RIGHT, UP]) == [(7, 0.0, False), (2, 0.0, True)]
    assert walk(rooms(1, rooms=2, size=1), [UP, DOWN, LEFT]) == [(6, 0.0, False)] * 3  # walls keep out
    assert world.keys(np.zeros(3, int), np.array([6, 7, 8]))["msg"].tolist() == [0, 1, 2]


def test_contexts_are_as_many_as_asked_for():
    assert lava_trail().contexts == 3000
    assert star().contexts == 1
    assert star(7).contexts == 7
    maps = lava_trail(20).maps.cells
    assert len(np.unique(maps.reshape(20, -1), axis=0)) == 20
    assert set(np.unique(maps)) == {FLOOR, GOAL, LAVA}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lava_trail(0), "contexts is 0; it must be at least 1"),
        (lambda: lava_trail(1, length=1), "length=1"),
        (lambda: lava_trail(1, size=5, length=20), "none of 20480 trails of 20 cells fitted"),
        (lambda: lava_trail(1, horizon=0), "horizon=0"),
        (lambda: lava_trail(1, straight=1.5), "straight=1.5"),
        (lambda: rooms(1, rooms=1), "Take at least 2 rooms"),
        (lambda: rooms(1, walls="moat"), "walls='moat'"),
        (lambda: star(1, arms=1), "arms=1"),
    ],
)
def test_a_world_that_cannot_be_says_so(make, words):
    with pytest.raises(InputError, match=words):
        make()


# Which context comes next


def test_a_rows_contexts_depend_on_its_seed_and_number_alone():
    def contexts(seeds, order):
        episodes = Episodes(lava_trail(1000), len(seeds))
        episodes.seed(np.array(seeds))
        found = [[] for _ in seeds]
        for row in order:
            episodes.begin(np.array([row]))
            found[row].append(int(episodes.context[row]))
        return found

    together = contexts([5, 9], [0, 1, 0, 0, 1])
    assert together == [contexts([5], [0] * 3)[0], contexts([9], [0] * 2)[0]]
    assert contexts([5], [0]) != contexts([6], [0])


def test_contexts_come_equally_often():
    episodes = Episodes(star(4), 1000)
    episodes.seed(np.arange(1000))
    counts = np.zeros(4)
    for _ in range(20):
        episodes.begin(np.arange(1000))
        counts += np.bincount(episodes.context, minlength=4)
    # 20,000 draws in four: a standard deviation of 61.
    assert np.abs(counts - 5000).max() < 250


def test_what_contexts_share_is_what_was_measured_before():
    """The table of the pilot, made with other trails of the same kind: by position much, by message nothing."""
    table = lava_trail().table(0.99)
    by = {name: shared_structure(table.values, keys, table.contexts) for name, keys in table.keys.items()}
    assert by["pos"].mean == pytest.approx(0.124, abs=0.002)
    assert len(by["pos"].keys) == 121  # every cell but the border's is on some trail
    assert by["msg"].mean == pytest.approx(0.0, abs=1e-12)
    one = lava_trail(1).table(0.99)
    assert shared_structure(one.values, one.keys["pos"], one.contexts).mean == 0
