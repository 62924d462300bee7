"""Counts by stage, segment and bucket, in bounded segments."""

from __future__ import annotations

from itertools import permutations

import pytest

from streams.combine import Combiner, Labels, merge
from streams.frames import Segment
from streams.settings import SegmentSettings


def labels(max_values: int = 50, pairs: tuple[tuple[str, str], ...] = ()) -> Labels:
    return Labels(
        SegmentSettings(watch=("device", "channel"), watch_leads=("source",), pairs=pairs, max_values=max_values)
    )


def test_everyone_counts_in_all_and_in_each_watched_label() -> None:
    found = labels().segments({"device": "tv", "campaign": "x", "channel": "mail"})
    assert found == [(), (("device", "tv"),), (("channel", "mail"),)]
    assert labels().segments({}) == [()]


def test_leads_are_watched_by_labels_of_their_own() -> None:
    assert labels().segments({"device": "tv", "source": "ads"}, leads=True) == [(), (("source", "ads"),)]


@pytest.mark.parametrize("pair", [("source", "model"), ("model", "source")])
def test_a_pair_is_watched_where_both_labels_are_known_and_is_sorted(pair: tuple[str, str]) -> None:
    made = labels(pairs=(pair,))
    assert made.segments({"source": "ads", "model": "m"})[-1] == (("model", "m"), ("source", "ads"))
    assert made.segments({"source": "ads"}) == [()]


def test_the_first_values_keep_their_name_and_the_rest_is_other() -> None:
    made = labels(max_values=2)
    seen = [made.segments({"device": value})[1][0][1] for value in ("a", "b", "c", "a", "d", "b")]
    assert seen == ["a", "b", "other", "a", "other", "b"]
    assert made.overflowed == 2
    assert list(made.values["device"]) == ["a", "b"]


def test_each_label_has_a_bound_of_its_own_and_pairs_use_bounded_values() -> None:
    made = labels(max_values=1, pairs=(("device", "channel"),))
    made.segments({"device": "a", "channel": "x"})
    assert made.segments({"device": "b", "channel": "x"})[-1] == (("channel", "x"), ("device", "other"))


def test_counts_add_up_in_every_segment_and_leave_with_the_bucket_in_a_fixed_order() -> None:
    mobile: Segment = (("device", "mobile"),)
    adds: list[tuple[str, list[Segment], str, int]] = [
        ("evaluate", [(), mobile], "entered", 1), ("compare", [()], "entered", 1), ("evaluate", [()], "entered", 2),
        ("evaluate", [mobile], "dwell_ms", 0),
    ]  # fmt: skip
    told = []
    for order in permutations(adds):
        combiner = Combiner()
        for add in order:
            combiner.add(*add)
        told.append([(cell.ts, cell.stage, cell.segment, cell.counts) for cell in combiner.close(60.0)])
        assert combiner.close(70.0) == []
    assert told[0] == [
        (60.0, "compare", (), {"entered": 1}), (60.0, "evaluate", (), {"entered": 3}),
        (60.0, "evaluate", mobile, {"entered": 1, "dwell_ms": 0}),
    ]  # fmt: skip
    assert all(cells == told[0] for cells in told)


def test_merging_adds_field_by_field_and_leaves_the_second_alone() -> None:
    into, counts = {"a": 1, "b": 2}, {"b": 3, "c": 4}
    merge(into, counts)
    assert (into, counts) == ({"a": 1, "b": 5, "c": 4}, {"b": 3, "c": 4})
