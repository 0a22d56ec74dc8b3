# SPDX-License-Identifier: MIT
"""Lines of the keys of a TOML document: of every way to write one, and of any document that a parser takes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.sim.places import lines_of
from ustack.sim.toml import loads

DOCUMENT = '''# first
top = 1   # one
"quoted key" = 'x'
a.b.c = [ 1,
  2, # two
  { d = 3, e.f = [4] },
]
text = """
[not.a.table]
no = "key" \\"""
"""
literal = \'\'\'
x = 1\'\'\'\'
inline = { g = { h = "}" }, i = ']' }

[table]
date = 1979-05-27 07:32:00
[table.sub."dotted.name"]
"esc\\u0061pe\\t" = 1
[[list]]
x = 1
[[list]]
[list.inner]
y = 2
[[list.deep]]
z = 3
'''
EXPECTED = {
    ("top",): 2,
    ("quoted key",): 3,
    ("a",): 4,
    ("a", "b", "c"): 4,
    ("a", "b", "c", 0): 4,
    ("a", "b", "c", 1): 5,
    ("a", "b", "c", 2, "d"): 6,
    ("a", "b", "c", 2, "e", "f", 0): 6,
    ("text",): 8,
    ("literal",): 12,
    ("inline", "g", "h"): 14,
    ("inline", "i"): 14,
    ("table",): 16,
    ("table", "date"): 17,
    ("table", "sub", "dotted.name"): 18,
    ("table", "sub", "dotted.name", "escape\t"): 19,
    ("list",): 20,
    ("list", 0): 20,
    ("list", 0, "x"): 21,
    ("list", 1): 22,
    ("list", 1, "inner", "y"): 24,
    ("list", 1, "deep", 0, "z"): 26,
}


def paths_of(tree: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = {path} if path else set()
    for key, value in items:
        found |= paths_of(value, (*path, key))
    return found


@pytest.mark.parametrize("path", EXPECTED, ids=str)
def test_a_key_has_the_line_where_it_is_first_named(path: tuple[str | int, ...]) -> None:
    assert lines_of(DOCUMENT)[path] == EXPECTED[path]


def test_every_path_of_a_document_has_a_line() -> None:
    assert set(lines_of(DOCUMENT)) == paths_of(loads(DOCUMENT))


KEYS = st.sampled_from(["a", "b-c", '"d e"', "'f.g'", '"h\\"#"', "_", "9"])
STRINGS = st.sampled_from(['"x"', "'[y]'", '"""\nz = 1\n"""', "'''a\n'b'''", '"#"', '""', '""""q"""""'])
SCALARS = st.one_of(st.integers(-9, 9).map(str), STRINGS, st.sampled_from(["true", "1e3", "1979-05-27 07:32:00"]))
GAPS = st.sampled_from(["", " ", "\n", " # ], } = [\n"])


def arrays(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(st.lists(items, max_size=3), GAPS).map(
        lambda made: "[" + f",{made[1]}".join(made[0]) + made[1] + "]"
    )


def inline_tables(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.dictionaries(KEYS, items, max_size=3)
    return pairs.map(lambda made: "{ " + ", ".join(f"{key} = {value}" for key, value in made.items()) + " }")


VALUES = st.recursive(SCALARS, lambda items: st.one_of(arrays(items), inline_tables(items)), max_leaves=8)
PAIRS = st.tuples(st.lists(KEYS, min_size=1, max_size=2), VALUES).map(lambda made: f"{'.'.join(made[0])} = {made[1]}")
HEADERS = st.tuples(st.booleans(), st.lists(KEYS, min_size=1, max_size=3)).map(
    lambda made: f"[[{' . '.join(made[1])}]]" if made[0] else f"[{'.'.join(made[1])}]"
)


@given(st.lists(st.one_of(PAIRS, HEADERS), max_size=6))
def test_whatever_a_parser_takes_has_its_lines(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        tree = loads(text)
    except ValueError:  # a key twice
        return
    found = lines_of(text)
    assert set(found) == paths_of(tree)
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert any(word in text.splitlines()[line - 1] for word in (path[-1], path[-1].replace('"', '\\"')))
