"""One bad part must never keep the others out."""

from hypothesis import given
from hypothesis import strategies as st

from tramontane.gateway.parts import Parts

keys = st.integers(0, 8)


@given(st.sets(keys), st.sets(keys), st.sets(keys))
def test_every_good_part_gets_in_and_no_bad_one(first: set[int], then: set[int], bad: set[int]):
    parts: Parts[int] = Parts()
    for key in first:
        parts.put(key, b"+")
    parts.join()
    parts.accept()
    for key in then:
        parts.put(key, b"-" if key in bad else b"*")
    blamed: set[int] = set()
    for _ in range(40):
        if b"-" in parts.join():
            fault = parts.reject()
            blamed |= set() if fault is None else {fault}
        elif not parts.accept():
            break
    whole = parts.join()
    assert blamed == then & bad
    assert whole.count(b"*") == len(then - bad)
    # What was good before its change stays as it was.
    assert whole.count(b"+") == len(first - (then - bad))


def test_a_bad_part_gets_a_new_chance_when_it_changes() -> None:
    parts: Parts[str] = Parts()
    parts.put("a", b"bad")
    parts.join()
    assert parts.reject() == "a"
    assert parts.join() == b""
    parts.put("a", b"good")
    assert parts.join() == b"good"


def test_removed_parts_are_gone() -> None:
    parts: Parts[str] = Parts()
    parts.put("a", b"1")
    parts.put("b", b"2")
    parts.remove("a")
    parts.remove("unknown")
    assert parts.join() == b"2"
