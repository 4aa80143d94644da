"""Pictures of studies: well-formed, the same for the same numbers, and able to show what may be missing."""

import re
from xml.etree import ElementTree

import numpy as np

from peso.experiments.forest import FAR, Difference, forest, near_limit
from peso.experiments.frontier import CurvePoint, curves_picture
from peso.experiments.heat_map import ModelMatrix, heat_maps
from peso.experiments.markdown import markdown_table


def num_paths(svg: str) -> int:
    return sum(element.tag.endswith("}path") for element in ElementTree.fromstring(svg).iter())


def test_a_forest_shows_every_difference() -> None:
    lines = [Difference(f"method {number}", 0.1 * number, -0.1, 0.5, number > 1) for number in range(4)]
    svg = forest([("NDCG@10", lines), ("log-likelihood", lines[:2])])
    assert svg == forest([("NDCG@10", lines), ("log-likelihood", lines[:2])])
    assert num_paths(svg) > num_paths(forest([("NDCG@10", lines[:2]), ("log-likelihood", lines[:2])]))
    assert num_paths(forest([])) > 0


def test_a_line_far_away_is_a_number_and_leaves_the_others_their_scale() -> None:
    near = [Difference(f"method {number}", 0.1 * number, -0.1, 0.5, number > 1) for number in range(4)]
    far = [Difference("frozen", -4.37, -4.6, -4.1, True), Difference("memory", 7.25, 7.0, 7.5, True)]
    assert near_limit([*near, *far]) == FAR * 0.5
    assert near_limit([]) == np.inf
    texts = set(re.findall(r"<!-- (.*?) -->", forest([("log-likelihood", [*near, *far])])))
    assert {"-4.37", "+7.25", "frozen", "memory"} <= texts
    ticks = [
        float(text.replace("\N{MINUS SIGN}", "-")) for text in texts if re.fullmatch("[\N{MINUS SIGN}]?[0-9.]+", text)
    ]
    assert len(ticks) >= 2 and max(map(abs, ticks)) <= 1


def test_curves_with_one_seed_and_with_several() -> None:
    def points(deviation: float | None) -> list[CurvePoint]:
        return [CurvePoint(knob, {"x": (knob, deviation), "y": (-knob, deviation)}) for knob in (0.1, 1.0, 10.0)]

    frontier = (("x", "this block"), ("y", "next block"))
    for deviation in (None, 0.2):
        svg = curves_picture({"decoupled": points(deviation)}, [("y", "next block")], frontier, "strength",
                             ("single", points(deviation)[0]), [("decoupled", 1.0)])  # fmt: skip
        assert num_paths(svg) > 10
    assert num_paths(curves_picture({"decoupled": points(None)}, [], frontier, "strength")) > 5


def test_a_heat_map_has_a_panel_per_matrix_and_stands_a_constant_one() -> None:
    values = np.arange(12, dtype=np.float64).reshape(4, 3)
    one = heat_maps([[ModelMatrix("single", values, 2)]])
    two = heat_maps([[ModelMatrix("single", values, 2), ModelMatrix("peso", 0 * values, 2)]])
    assert one.count("<image") < two.count("<image")


def test_markdown_by_hand() -> None:
    assert markdown_table(["", "n", "x"], [["a", 3, 0.123456], ["b", None, -13.14159]]) == [
        "|  | n | x |",
        "|---|---|---|",
        "| a | 3 | 0.1235 |",
        "| b | - | -13.142 |",
    ]
