# SPDX-License-Identifier: BSD-3-Clause
"""Every cmocka program, from the plain build and from the one under ASan and UBSan."""
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROGRAMS = sorted(source.stem for source in HERE.glob("*_test.c"))
ENVIRONMENT = dict(os.environ, UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1", ASAN_OPTIONS="detect_leaks=1")


@pytest.mark.parametrize("build", ["build", "build-asan"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_unit(program, build, tmp_path):
    path = ROOT / build / "tests" / "unit" / program
    assert path.exists(), f"{path} is not built: run `make test`"
    done = subprocess.run([path], cwd=tmp_path, env=ENVIRONMENT, timeout=120, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-8000:]
