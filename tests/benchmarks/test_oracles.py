"""Half a per cent is allowed, and no more."""

import pytest
from oracles import CASES, Comparison


@pytest.mark.parametrize(("ours", "weaker"), [(100, False), (105, False), (106, True), (0, False)])
def test_ours_is_weaker_where_it_leaves_more_than_half_a_per_cent_more(ours: int, weaker: bool) -> None:
    found = Comparison(CASES[0], "peer", rows=1000, ours=ours, theirs=100, only_ours=0, only_theirs=0)
    assert found.weaker == weaker
    assert str(found).endswith("WEAKER" if weaker else "ok")
