# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json

import pytest

from spike_perception.errors import InputError
from spike_perception.evaluation import bench_places


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    bench_places.configure(parser)
    return bench_places.run(parser.parse_args(list(words)))


def test_small_run(capsys: pytest.CaptureFixture) -> None:
    sizes = ["--sizes", "200,1000", "--queries", "20", "--dimension", "64", "--additions", "20"]
    assert run(*sizes, "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert [(r["kind"], r["places"]) for r in result["search"]] == [
        ("float", 200),
        ("bits", 200),
        ("float", 1000),
        ("bits", 1000),
    ]
    for row in result["search"]:
        assert row["method"] == "exact"
        assert row["nearest_first"] == row["recall_at_10"] == 1.0
        assert row["query_ms_median"] > 0
    assert result["add"]["add_ms_median"] > 0
    assert run(*sizes) == 0
    assert "durable add" in capsys.readouterr().out


@pytest.mark.parametrize("sizes", ["", "ten", "5", "1000,-3"])
def test_sizes_that_make_no_sense(sizes: str) -> None:
    with pytest.raises(InputError):
        run("--sizes", sizes)
