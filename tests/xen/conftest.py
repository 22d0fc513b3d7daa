# SPDX-License-Identifier: BSD-3-Clause
import os
import shutil
import tempfile

import pytest

from lib.xen import Dom0, NoImage


@pytest.fixture(scope="module")
def dom0():
    """One Xen for all tests of a module, which take some time to boot: a test leaves it as it found it."""
    folder = tempfile.mkdtemp(prefix=f"vifd-{os.getpid()}-")
    try:
        with Dom0(folder, counts=True) as xen:
            yield xen
    except NoImage as why:
        pytest.skip(f"no Xen here: {why}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
