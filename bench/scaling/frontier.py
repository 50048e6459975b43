"""The fewest late requests that a set of settings has at a cost: how policies are compared fairly.

Two policies that cost differently cannot be compared by their late requests alone, since anybody
can be in time with enough instances. So ours is held against what the rivals, all their settings
taken together, have at exactly the instance-seconds that ours took: the lower convex hull of their
points, which is what one would get by running two of the settings in turn.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

Point = tuple[float, float]
"""Cost and late requests."""


def find_frontier(points: Iterable[Point]) -> list[Point]:
    """Return the points that no mixture of others beats, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points):
        if best and point[1] >= best[-1][1]:
            continue
        while len(best) > 1 and _slope(best[-2], best[-1]) >= _slope(best[-2], point):
            best.pop()
        best.append(point)
    return best


def late_at(frontier: Sequence[Point], cost: float) -> float:
    """Return the late requests of a frontier at a cost; below its cheapest point, that one's."""
    if cost <= frontier[0][0]:
        return frontier[0][1]
    for (cost_a, late_a), (cost_b, late_b) in pairwise(frontier):
        if cost <= cost_b:
            return late_a + (late_b - late_a) * (cost - cost_a) / (cost_b - cost_a)
    return frontier[-1][1]


def _slope(a: Point, b: Point) -> float:
    return (b[1] - a[1]) / (b[0] - a[0]) if b[0] > a[0] else 0.0
