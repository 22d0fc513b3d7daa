# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures for every test that runs vifd: what they start ends with the test.

Tests import helpers as lib.vifd, lib.guest, lib.traffic. VIFD_BUILD names the build folder to test.
"""
import contextlib
import itertools
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from lib.sweep import sweep
from lib.vifd import Netns, Vifd

_number = itertools.count(1)


def _terminated(*_):
    """SIGTERM ends a run as Ctrl-C does, in the workers too: fixtures are torn down."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().startswith("python"):
                os.kill(int(child), signal.SIGINT)
    raise KeyboardInterrupt


def pytest_configure(config):
    if not hasattr(config, "workerinput"): # the one process that sees the whole run
        signal.signal(signal.SIGTERM, _terminated)
        sweep()


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        sweep()


@pytest.fixture
def folder():
    """A folder of the test's own with a short path: unix sockets allow 107 characters."""
    path = tempfile.mkdtemp(prefix=f"vifd-{os.getpid()}-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def cleanup():
    """An ExitStack that unwinds at the end of the test, telling what it enters of a failure."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def start_vifd(folder, cleanup, request):
    """Start a vifd that runs these commands, see lib.vifd.Vifd. At the test's end it must end cleanly."""
    def start(*commands, **options):
        vifd = cleanup.enter_context(Vifd(folder, *commands, name=f"vifd{next(_number)}", **options))
        request.node.vifds = getattr(request.node, "vifds", []) + [vifd]
        return vifd
    return start


@pytest.fixture
def make_netns(folder, cleanup):
    """Make a network namespace with a unique name, see lib.vifd.Netns."""
    def make(name):
        return cleanup.enter_context(Netns(folder, f"{next(_number)}{name}"))
    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With a failed test, what its vifds said."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for vifd in getattr(item, "vifds", []):
            report.sections.append((str(vifd.log_path), vifd.log()))
