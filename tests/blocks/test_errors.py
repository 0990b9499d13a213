"""Refusals as data, and the one place where they become text."""

import pickle
from pathlib import Path

import pytest

from blocks.errors import MAX_LINES, Place, Problem, SpecError, argument, reason, render

AT = Place("net.yaml", 3, 7)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("is wrong"), "is wrong"),
        (Problem("is wrong", field="a.0.b"), "a.0.b: is wrong"),
        (Problem("is wrong", AT), "net.yaml:3:7  is wrong"),
        (Problem("is wrong", AT, "a.0.b"), "net.yaml:3:7  a.0.b: is wrong"),
        (Problem("is wrong", Place("net.yaml")), "net.yaml: is wrong"),
        (Problem("is wrong", Place("a=1", kind="override")), "-s a=1  is wrong"),
        (Problem("is wrong", argument("patch_size", (4, 4))), "patch_size=(4, 4): is wrong"),
        (Problem("is wrong", argument("patch_size", 4), "a"), "patch_size=4  a: is wrong"),
        (Problem("is wrong", Place("--fold", kind="option", value=9)), "--fold 9: is wrong"),
        (
            Problem("unknown key", AT, "b", allowed="c, d", suggestion="did you mean 'c'?"),
            "net.yaml:3:7  b: unknown key; allowed: c, d; did you mean 'c'?",
        ),
    ],
)
def test_a_line(problem: Problem, line: str) -> None:
    assert render([problem]) == str(SpecError([problem])) == line


def test_one_problem_by_its_parts() -> None:
    error = SpecError(
        "is wrong", where=Path("net.yaml"), field="a", allowed="b", suggestion="use b", other="c"
    )
    assert error.problems == (Problem("is wrong", Place("net.yaml"), "a", "b", "use b", "c"),)
    assert str(error) == "net.yaml: a: is wrong; allowed: b; use b"


def test_many_problems_are_cut_in_the_text_alone() -> None:
    problems = [Problem(f"is wrong {n}") for n in range(MAX_LINES)]
    assert str(SpecError(problems)).splitlines() == [one.problem for one in problems]
    error = SpecError([*problems, *problems])
    lines = str(error).splitlines()
    assert len(lines) == MAX_LINES and lines[-1] == f"and {MAX_LINES + 1} more mistakes"
    assert len(error.problems) == 2 * MAX_LINES


def test_what_others_add() -> None:
    class OneKindError(SpecError):
        pass

    error = OneKindError([Problem("is wrong", field="b"), Problem("is worse", AT)])
    assert [one.field for one in error.below("a").problems] == ["a.b", "a"]
    assert [one.field for one in error.below("").problems] == ["b", ""]
    assert [one.where for one in error.at("net").problems] == [Place("net"), AT]
    assert isinstance(error.below("a").at("net"), OneKindError)
    assert [one.field for one in error.problems] == ["b", ""]


def test_errors_travel_between_processes() -> None:
    error = SpecError([Problem("is wrong", AT, "a")])
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, SpecError) and again.problems == error.problems


def test_the_reason_of_another_library() -> None:
    assert reason(ValueError("first\nsecond")) == "first"
    assert reason(ValueError()) == "ValueError"
    assert reason(FileNotFoundError(2, "No such file or directory", "x")).startswith("No such file")
