"""Counts by stage, segment and bucket, in bounded segments."""

from __future__ import annotations

from itertools import permutations

import pytest

from streams.combine import Combiner, Labels, merge, segments_of
from streams.frames import Segment, encode_json
from streams.settings import SegmentSettings


def labels(max_values: int = 50, pairs: tuple[tuple[str, str], ...] = ()) -> Labels:
    return Labels(
        SegmentSettings(watch=("device", "channel"), watch_leads=("source",), pairs=pairs, max_values=max_values)
    )


def segments(made: Labels, given: dict[str, str], *, of: str = "journey") -> list[Segment]:
    return segments_of(made.know(given, of=of).cohort)


def test_everyone_counts_in_all_and_in_each_watched_label() -> None:
    found = segments(labels(), {"device": "tv", "campaign": "x", "channel": "mail"})
    assert found == [(), (("device", "tv"),), (("channel", "mail"),)]
    assert segments(labels(), {}) == [()]


def test_leads_are_watched_by_labels_of_their_own() -> None:
    assert segments(labels(), {"device": "tv", "source": "ads"}, of="leads") == [(), (("source", "ads"),)]


@pytest.mark.parametrize("pair", [("source", "model"), ("model", "source")])
def test_a_pair_is_watched_where_both_labels_are_known_and_is_sorted(pair: tuple[str, str]) -> None:
    made = labels(pairs=(pair,))
    assert segments(made, {"source": "ads", "model": "m"})[-1] == (("model", "m"), ("source", "ads"))
    assert segments(made, {"source": "ads"}) == [()]


def test_the_first_values_keep_their_name_and_the_rest_is_other() -> None:
    made = labels(max_values=2)
    seen = [segments(made, {"device": value})[1][0][1] for value in ("a", "b", "c", "a", "d", "b")]
    assert seen == ["a", "b", "other", "a", "other", "b"]
    assert made.overflowed == 2
    assert list(made.values["device"]) == ["a", "b"]


def test_each_label_has_a_bound_of_its_own_and_pairs_use_bounded_values() -> None:
    made = labels(max_values=1, pairs=(("device", "channel"),))
    segments(made, {"device": "a", "channel": "x"})
    assert segments(made, {"device": "b", "channel": "x"})[-1] == (("channel", "x"), ("device", "other"))


def test_counts_add_up_in_every_segment_and_leave_with_the_bucket() -> None:
    mobile: Segment = (("device", "mobile"),)
    everyone, only_mobile, both = (encode_json(part).decode() for part in ([()], [mobile], [(), mobile]))
    adds = [
        ("evaluate", both, "entered", 1), ("compare", everyone, "entered", 1), ("evaluate", everyone, "entered", 2),
        ("evaluate", only_mobile, "dwell_ms", 0),
    ]  # fmt: skip
    for order in permutations(adds):
        combiner = Combiner()
        for add in order:
            combiner.add(*add)
        assert sorted((cell.ts, cell.stage, cell.segment, cell.counts) for cell in combiner.close(60.0)) == [
            (60.0, "compare", (), {"entered": 1}), (60.0, "evaluate", (), {"entered": 3}),
            (60.0, "evaluate", mobile, {"entered": 1, "dwell_ms": 0}),
        ]  # fmt: skip
        assert combiner.close(70.0) == []


def test_a_bucket_does_not_change_what_left_before() -> None:
    combiner, everyone = Combiner(), labels().know({}).cohort
    combiner.add_each("evaluate", everyone, ["entered", "judged"])
    first = combiner.close(0.0)
    combiner.add("evaluate", everyone, "entered")
    assert [cell.counts for cell in combiner.close(10.0)] == [{"entered": 1}]
    assert [cell.counts for cell in first] == [{"entered": 1, "judged": 1}]


def test_merging_adds_field_by_field_and_leaves_the_second_alone() -> None:
    into, counts = {"a": 1, "b": 2}, {"b": 3, "c": 4}
    merge(into, counts)
    assert (into, counts) == ({"a": 1, "b": 5, "c": 4}, {"b": 3, "c": 4})
