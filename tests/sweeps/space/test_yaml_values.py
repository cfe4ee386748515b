import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.sweeps.space.yaml_values import read_yaml

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES | TEXTS)
def test_json_is_read_as_json(value):
    assert read_yaml(json.dumps(value), "a file") == value


@given(st.dictionaries(TEXTS, TEXTS | st.integers() | st.lists(TEXTS, max_size=3), max_size=4))
def test_what_a_yaml_writer_writes_is_read_back(value):
    assert read_yaml(yaml.safe_dump(value, allow_unicode=True), "a file") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1),
        ("4e0", 4.0),
        ("1e-05", 1e-05),
        ("+1.5E3", 1500.0),
        (".5", 0.5),
        ("-7", -7),
        ("0", 0),
        ("2024-01-15", "2024-01-15"),
        ("True", True),
        ("None", None),
        ("~", None),
        ("North", "North"),
        ("y", "y"),
        ("'NO'", "NO"),
        ('"010"', "010"),
        ("=", "="),
        ("[a, 1e3, 'off']", ["a", 1000.0, "off"]),
    ],
)
def test_values_are_what_people_mean(text, value):
    found = read_yaml(f"x: {text}", "a file")["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "reading", "instead"),
    [
        ("NO", "false", '"NO" in quotes for the text, or false'),
        ("off", "false", '"off" in quotes'),
        ("Yes", "true", '"Yes" in quotes for the text, or true'),
        ("on", "true", "or true"),
        ("NULL", "null", "or null"),
        ("", "null", "write a value, or null"),
        ("010", "a number in base 8", "in plain decimals"),
        ("0o17", "text, or a number in base 8", "in plain decimals"),
        ("0b11", "a number in base 2", "in plain decimals"),
        ("0xFF", "a number in base 16", "in plain decimals"),
        ("1:30", "a number in base 60", "in plain decimals"),
        ("1_000", "a number without its underscores", "in plain decimals"),
        (".inf", "infinity", "a number"),
        ("-.Inf", "infinity", "a number"),
        (".NaN", "not a number", "a number"),
    ],
)
def test_what_yaml_reads_otherwise_is_named(text, reading, instead):
    with pytest.raises(InputError) as raised:
        read_yaml(f"parameters:\n  regions: {text}\n  k: 1\n", "s.yaml")
    told = str(raised.value)
    assert told.startswith("s.yaml, line 2: parameters.regions")
    assert f"YAML reads as {reading}" in told
    assert instead in told


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' comes twice"),
        ("a:\n\tb: 1", "line 2 is not YAML: a tab stands where YAML wants spaces"),
        ("a: &x [1]\nb: *x", "line 1: &x is a YAML alias"),
        ("a: *x", r"\*x is a YAML alias"),
        ("a: &x [*x]", "&x is a YAML alias"),
        ("<<: {a: 1}", "<< merges mappings"),
        ("a: !!python/object/apply:os.system [ls]", "has the YAML tag"),
        ("a: !!binary aGk=", "has the YAML tag"),
        ("? [1]\n: 2", "stands as a key"),
        ("a: 1\n---\nb: 2", "a second document starts"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: 1e999", "beyond any number"),
        ("a: b: c", "is not YAML: mapping values are not allowed here"),
        ("a: [1, 2", "is not YAML"),
        ("a: \x07", "is not YAML: special characters are not allowed"),
        ('a: "\\ud800"', "half a surrogate pair"),
        ("[" * 100_000, "more than 16 levels deep"),
        ("{value: 0,5}", "5 is empty, which YAML reads as null"),
    ],
)
def test_what_cannot_be_read_is_named(text, match):
    with pytest.raises(InputError, match=match):
        read_yaml(text, "s.yaml")


def test_aliases_do_not_grow(tmp_path):
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
    )
    with pytest.raises(InputError, match="alias"):
        read_yaml(bomb, "s.yaml")


@given(st.text(max_size=200) | st.text("[]{}:,-?&*!|>'\"%@` \n\tab01.#<=~", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        found = read_yaml(text, "s.yaml")
    except InputError:
        return
    json.dumps(found, allow_nan=False)
    assert not isinstance(found, float) or math.isfinite(found)
