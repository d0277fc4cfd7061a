"""Place the steps of a graph on a page: in layers, with few crossings, and without overlaps.

The layers are those of the longest path. An edge that passes a layer gets a place of its own there, so that it runs
between the boxes. A shape is drawn again and again while its run goes on, so the latest layouts are kept.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

HEIGHT = 46
"""The height of a box in pixels."""
MARGIN = 8
_ACROSS, _DOWN = 20, 40
_BEND = 6
_SWEEPS = 8
MOST_BENDS = 4000
"""The most places for edges that pass layers. In a graph that needs more, these edges run behind boxes."""

Shape = tuple[tuple[int, ...], ...]
"""For each node the nodes that it depends on, which all come before it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the boxes and edges of a graph are, in pixels.

    Attributes:
        width: The width of the drawing.
        height: Its height.
        box_width: The width of each box.
        boxes: The left and the top of each node's box.
        edges: For each edge the node that it comes from, the one it goes to, and the tops and centres of the places
            where it passes layers.
    """

    width: int
    height: int
    box_width: int
    boxes: tuple[tuple[int, int], ...]
    edges: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]


@functools.lru_cache(maxsize=64)
def layout(shape: Shape, box_width: int) -> Layout:
    """Place a graph.

    Args:
        shape: For each node the nodes before it that it depends on.
        box_width: The width of a box in pixels.
    """
    graph = _Graph(shape)
    order = _with_few_crossings(graph)
    centres = _placed(graph, order, box_width)
    least = min((centre - _width(graph, node, box_width) / 2 for node, centre in enumerate(centres)), default=0)
    lefts = [round(centre - least + MARGIN) for centre in centres]
    tops = [MARGIN + rank * (HEIGHT + _DOWN) for rank in graph.ranks]
    boxes = tuple((lefts[node] - box_width // 2, tops[node]) for node in range(graph.real))
    edges = tuple((first, last, tuple((lefts[node], tops[node]) for node in way)) for first, last, way in graph.ways)
    right = max((lefts[node] + _width(graph, node, box_width) // 2 for node in range(len(lefts))), default=0)
    return Layout(right + MARGIN, max(tops, default=0) + HEIGHT + MARGIN, box_width, boxes, edges)


class _Graph:
    """A graph in layers, with a node of its own for each layer that an edge passes."""

    def __init__(self, shape: Shape) -> None:
        self.real = len(shape)
        self.ranks: list[int] = []
        for after in shape:
            self.ranks.append(1 + max((self.ranks[node] for node in after), default=-1))
        self.above: list[list[int]] = [[] for _ in shape]
        self.below: list[list[int]] = [[] for _ in shape]
        self.ways: list[tuple[int, int, list[int]]] = []
        edges = [(first, last) for last, after in enumerate(shape) for first in after]
        bends = sum(self.ranks[last] - self.ranks[first] - 1 for first, last in edges)
        for first, last in edges:
            self.ways.append((first, last, self._pass(first, last) if bends <= MOST_BENDS else []))

    def _pass(self, first: int, last: int) -> list[int]:
        """Add a node for each layer between two nodes, and join them all. Return the added ones."""
        way = []
        upper = first
        for rank in range(self.ranks[first] + 1, self.ranks[last]):
            node = len(self.ranks)
            self.ranks.append(rank)
            self.above.append([])
            self.below.append([])
            self._join(upper, node)
            way.append(node)
            upper = node
        self._join(upper, last)
        return way

    def _join(self, upper: int, lower: int) -> None:
        self.below[upper].append(lower)
        self.above[lower].append(upper)

    def layers(self) -> list[list[int]]:
        """Return the nodes of each layer, the top one first."""
        found: list[list[int]] = [[] for _ in range(max(self.ranks, default=-1) + 1)]
        for node, rank in enumerate(self.ranks):
            found[rank].append(node)
        return found


def _width(graph: _Graph, node: int, box_width: int) -> int:
    return box_width if node < graph.real else _BEND


def _with_few_crossings(graph: _Graph) -> list[list[int]]:
    """Return the layers of a graph, each sorted by the barycentres of its neighbours, down and up in turn."""
    layers = graph.layers()
    best, fewest = [list(layer) for layer in layers], _crossings(graph, layers)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        goes_down = sweep % 2 == 0
        neighbours = graph.above if goes_down else graph.below
        place = {node: number for layer in layers for number, node in enumerate(layer)}
        for layer in layers if goes_down else reversed(layers):
            layer.sort(key=lambda node: _mean([place[one] for one in neighbours[node]], place[node]))
            place |= {node: number for number, node in enumerate(layer)}
        count = _crossings(graph, layers)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    return best


def _crossings(graph: _Graph, layers: Sequence[Sequence[int]]) -> int:
    """Return how many pairs of edges cross between the layers."""
    count = 0
    for upper, lower in pairwise(layers):
        places = {node: number for number, node in enumerate(lower)}
        passed: list[int] = []
        for node in upper:
            ends = sorted(places[one] for one in graph.below[node] if one in places)
            count += sum(len(passed) - bisect_right(passed, end) for end in ends)
            passed = sorted(passed + ends)
    return count


def _placed(graph: _Graph, layers: Sequence[Sequence[int]], box_width: int) -> list[float]:
    """Return the centre of each node: as near to its neighbours as the order and the gaps of its layer allow."""
    centres = [0.0] * len(graph.ranks)
    everyone = [[*above, *below] for above, below in zip(graph.above, graph.below, strict=True)]
    for neighbours in (graph.above, graph.below, graph.above, graph.below, everyone, everyone):
        for layer in layers if neighbours is not graph.below else reversed(layers):
            wanted = [_mean([centres[one] for one in neighbours[node]], centres[node]) for node in layer]
            widths = [_width(graph, node, box_width) for node in layer]
            for node, centre in zip(layer, _spread(wanted, widths), strict=True):
                centres[node] = centre
    return centres


def _spread(wanted: Sequence[float], widths: Sequence[int]) -> list[float]:
    """Return centres in this order, with gaps, whose squared distances from the wanted ones are least.

    Without its place in the packed layer, each centre must only be at least its left neighbour's: these are pooled
    until none is smaller (isotonic regression).
    """
    packed = [0.0]
    for left, right in pairwise(widths):
        packed.append(packed[-1] + (left + right) / 2 + _ACROSS)
    pools: list[tuple[float, int]] = []  # sum, number
    for centre, place in zip(wanted, packed, strict=False):
        total, number = centre - place, 1
        while pools and pools[-1][0] * number > total * pools[-1][1]:
            total, number = total + pools[-1][0], number + pools[-1][1]
            pools.pop()
        pools.append((total, number))
    moved = [total / number for total, number in pools for _ in range(number)]
    return [place + shift for place, shift in zip(packed, moved, strict=False)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
