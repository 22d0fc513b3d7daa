# SPDX-License-Identifier: BSD-3-Clause
"""Every libFuzzer target for its share of VIFD_FUZZ_SECONDS (30 unless set), from the corpus that it keeps in
tests/fuzz/corpus/NAME, if it has one. What it finds on the way stays out of the checkout."""
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FUZZERS = sorted(source.stem for source in HERE.glob("*_fuzz.c"))
SECONDS = max(1, int(os.environ.get("VIFD_FUZZ_SECONDS", 30)) // max(1, len(FUZZERS)))


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("fuzzer", FUZZERS)
def test_fuzz(fuzzer, tmp_path):
    path = ROOT / "build-fuzz" / "tests" / "fuzz" / fuzzer
    assert path.exists(), f"{path} is not built: run `make test`"
    seeds = HERE / "corpus" / fuzzer.removesuffix("_fuzz")
    grown = tmp_path / "corpus"
    grown.mkdir()
    done = subprocess.run([path, f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                           f"-artifact_prefix={tmp_path}/", grown, *([seeds] if seeds.is_dir() else [])],
                          cwd=tmp_path, timeout=SECONDS + 50, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-8000:]
