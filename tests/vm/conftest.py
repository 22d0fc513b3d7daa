# SPDX-License-Identifier: BSD-3-Clause
import os
import shutil
import tempfile
from contextlib import ExitStack

import pytest

from lib.guest import build_image
from lib.lab import Lab


@pytest.fixture(scope="module")
def module_folder():
    """A folder of the module's own with a short path: unix sockets allow 107 characters."""
    path = tempfile.mkdtemp(prefix=f"vifd-{os.getpid()}-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def make_lab(module_folder):
    """A function that starts a lab. It ends with the module, and its vifd must then end cleanly."""
    build_image()
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Lab(tempfile.mkdtemp(dir=module_folder), **options))


@pytest.fixture(scope="module")
def lab(make_lab):
    return make_lab()
