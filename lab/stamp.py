# SPDX-License-Identifier: BSD-3-Clause
"""What results are of: programs and experiments, mode, machine. With the same of each they need not be measured again
(--resume), and stand in one report.

Programs and experiments go in by their contents: a commit says nothing about a checkout that has changes. What only
writes the report does not count.
"""
import hashlib
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path

from lib.guest import ROOT, accelerator
from lib.vifd import program

LAB = Path(__file__).resolve().parent
PROGRAMS = ("vifd", "vifctl", "front/vif-front")
MUST_AGREE = ("digest", "quick", "machine")


def digest():
    """Of everything that figures depend on."""
    total = hashlib.sha256()
    sources = [*LAB.glob("*.py"), *LAB.glob("*.[ch]"), *(ROOT / "tests" / "lib").glob("*.py")]
    for path in sorted([*sources, *map(program, PROGRAMS)], key=lambda path: path.name):
        if not path.name.startswith("report"):
            total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def machine():
    """In words, for the report."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = re.findall(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    kind = "a virtual machine with" if re.search(r"^flags.* hypervisor", cpuinfo, re.MULTILINE) else "with"
    return (f"{kind} {os.cpu_count()} CPUs {', '.join(sorted(set(models))) or platform.machine()}, {memory:.0f} GiB, "
            f"Linux {platform.release()}, guests by {accelerator().upper()}")


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, text=True, capture_output=True)
    return done.stdout.strip() or "no git"


def make(name, quick, seconds, only=()):
    """A stamp. only: IDs of the rows that were asked for, when not all were."""
    return {"experiment": name, "quick": quick, "machine": machine(), "digest": digest(), "commit": commit(),
            "date": time.strftime("%Y-%m-%d %H:%M"), "seconds": round(seconds, 1), "only": sorted(only)}


def agree(one, other):
    return all(one.get(key) == other.get(key) for key in MUST_AGREE)


def read(path):
    """Results that were written before, None if there are none."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def is_there(path, now, wanted):
    """Whether what is wanted (row IDs; none: all) need not be measured again, by the stamp that it would get now."""
    results = read(path)
    if not results or not agree(results.get("stamp", {}), now):
        return False
    only = set(results["stamp"]["only"])
    return not only or bool(wanted) and only.issuperset(wanted)


def merge(results, earlier):
    """Results of what was wanted, with those of earlier ones that they leave out, if these agree with them."""
    only = set(results["stamp"]["only"])
    if not only or not earlier or not agree(earlier.get("stamp", {}), results["stamp"]):
        return results
    fresh = {row["id"] for row in results["rows"]}
    for part in ("rows", "bars"):
        results[part] = [one for one in earlier[part] if one["id"] not in fresh] + results[part]
    results["notes"] = list(dict.fromkeys([*earlier["notes"], *results["notes"]]))
    results["why"] = {**earlier["why"], **results["why"]}
    before = earlier["stamp"]["only"]
    results["stamp"]["only"] = sorted(only.union(before)) if before else []
    return results
