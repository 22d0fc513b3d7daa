# SPDX-License-Identifier: BSD-3-Clause
"""What a killed run leaves behind: network namespaces and folders named after a process that is gone.

Everything that tests, demo and lab make outside the checkout is called vifd-PID-...; processes end with their parent by
the kernel's hand (lib.guest.with_parent), these do not.
"""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

MEMORY = "/dev/shm" # for files that must not wait for a disk


def _orphans(folder):
    for path in sorted(Path(folder).glob("vifd-*")):
        match = re.match(r"vifd-(\d+)-", path.name)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            yield path


def sweep():
    for path in _orphans("/run/netns"):
        subprocess.run(["ip", "netns", "del", path.name], stderr=subprocess.DEVNULL) # another run may sweep too
    for folder in (tempfile.gettempdir(), MEMORY):
        for path in _orphans(folder):
            shutil.rmtree(path, ignore_errors=True)
