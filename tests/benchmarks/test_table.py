"""Ratios are taken within a round, and the tables show them."""

import io

import numpy as np
from table import Record, ratios, report, spread


def record(tool: str, cpu: float, seed: int = 0, round: int = 0, robust: int = 3) -> Record:
    return Record("net", "pgd", tool, seed, round, 2 * cpu, cpu, 10.0, robust, 10, 20.0, None, 0, 0)


def test_a_spread_is_the_median_and_its_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2.00 [1.00, 3.00]"


def test_ratios_pair_the_same_seed_and_round() -> None:
    above = [record("peer", 8.0, seed=0), record("peer", 9.0, seed=1), record("peer", 100.0, seed=2)]
    below = [record("ours-exact", 3.0, seed=1), record("ours-exact", 4.0, seed=0)]
    assert ratios(above, below, lambda each: each.cpu_s) == [2.0, 3.0]


def test_a_report_shows_costs_ratios_and_differing_rows() -> None:
    records = [record(tool, cpu, round=at) for at in (0, 1) for tool, cpu in (("ours-exact", 5.0), ("peer", 20.0 + at))]
    ours, peer = np.zeros(10, bool), np.zeros(10, bool)
    ours[:3], peer[1:6] = True, True
    file = io.StringIO()
    report(records, {("net", "pgd", "ours-exact", 0): ours, ("net", "pgd", "peer", 0): peer}, file)
    told = file.getvalue()
    assert "floor: cpu 10.00 [10.00, 10.00] s; with the default allocator 20.00 [20.00, 20.00] s" in told
    assert "peer / ours-exact: cpu 4.10 [4.00, 4.20], wall 4.10 [4.00, 4.20]" in told
    assert "of 10 rows only ours-exact broke 3, only peer 1" in told
    (line,) = [line.split() for line in told.splitlines() if line.startswith("  ours-exact")]
    assert line[1:7] == ["5.00", "[5.00,", "5.00]", "10.00", "[10.00,", "10.00]"]
    assert line[7] == "0.50"
