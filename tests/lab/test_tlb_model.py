# SPDX-License-Identifier: BSD-3-Clause
"""lab's models of a TLB (lab/tlb_model.c) against ones that are too simple to be wrong, on random traces."""
import json
import random
import subprocess
from collections import defaultdict

import pytest

from lib.vifd import BUILD

MARKS, STRIDE = 0x5eed0000, 8
MAP, COUNT, ENTER, LEAVE = range(4)
SMALL, SUPER = 4096, 2 << 20

# name -> (page sizes as in the map, first level, superpages' (None: shared), second level (None: none), switch=, every=);
# a level is (entries, ways)
MODELS = {
    "paper": (True, (64, 64), None, None, 1, 0),
    "paper-4k": (False, (64, 64), None, None, 0, 0),
    "two": (True, (16, 4), (8, 2), (96, 12), 3, 0),
    "two-4k": (False, (16, 4), (8, 2), (96, 12), 0, 0),
    "every": (True, (16, 16), (4, 1), (32, 8), 0, 97),
    "direct": (True, (8, 1), None, (24, 3), 2, 1000),
}
RANGES = [("guest", 0x7f0000000000, 64 << 20, SUPER), ("pool", 0x7f1000000000, 2 << 20, SUPER),
          ("ring", 0x7f2000000000, 1 << 20, SMALL)]
OTHER = ("other", RANGES[0][1] // SUPER * SMALL, 1 << 19, SMALL) # small pages with the numbers of large ones


class Tlb:
    """A list of pages in each set, the last used at its end."""

    def __init__(self, entries, ways):
        self.ways, self.count = ways, entries // ways
        self.empty()

    def empty(self):
        self.sets = defaultdict(list)

    def hit(self, page, size):
        pages = self.sets[page % self.count]
        hit = (page, size) in pages
        if hit:
            pages.remove((page, size))
        pages.append((page, size))
        del pages[:-self.ways]
        return hit


class Model:
    def __init__(self, by_map, first, large, second, switch, every):
        self.by_map, self.switch, self.every = by_map, switch, every
        small = Tlb(*first)
        self.first = {SMALL: small, SUPER: Tlb(*large) if large else small}
        self.second = second and Tlb(*second)
        self.enters = self.since = self.accesses = self.flushes = 0
        self.misses, self.walks = {SMALL: 0, SUPER: 0}, {SMALL: 0, SUPER: 0}
        self.misses_in = dict.fromkeys([*(name for name, *_ in RANGES), "other"], 0)

    def empty(self, counting):
        for tlb in (*self.first.values(), *([self.second] if self.second else [])):
            tlb.empty()
        self.since = 0
        self.flushes += counting

    def enter(self, counting):
        self.enters += 1
        if self.switch and self.enters % self.switch == 0:
            self.empty(counting)

    def access(self, at, length, counting):
        if self.every and self.since == self.every:
            self.empty(counting)
        self.since += 1
        self.accesses += counting
        name, size = next(((name, size) for name, start, room, size in RANGES if start <= at < start + room), ("other", SMALL))
        size = size if self.by_map else SMALL
        for page in range(at // size, (at + length - 1) // size + 1):
            if not self.first[size].hit(page, size):
                self.misses[size] += counting
                self.misses_in[name] += counting
                if not self.second or not self.second.hit(page, size):
                    self.walks[size] += counting

    def result(self):
        return {"accesses": self.accesses, "flushes": self.flushes, "misses": {"4k": self.misses[SMALL], "2m": self.misses[SUPER]},
                "walks": {"4k": self.walks[SMALL], "2m": self.walks[SUPER]}, "misses_in": self.misses_in}


def argument(name):
    by_map, first, large, second, switch, every = MODELS[name]

    def level(level):
        return "x".join(map(str, level))
    return (f"{name}:pages={'map' if by_map else '4k'},l1={level(first)},super={level(large) if large else 'shared'},"
            f"l2={level(second) if second else 0},switch={switch},every={every}")


def model_of(trace, page_map, *arguments):
    return subprocess.run([BUILD / "lab" / "tlb_model", page_map, *arguments], input=trace, timeout=60,
                          text=True, capture_output=True)


@pytest.fixture
def page_map(tmp_path):
    path = tmp_path / "map"
    path.write_text("".join(f"{start:x} {start + room:x} {size} {name}\n" for name, start, room, size in RANGES))
    return path


@pytest.mark.parametrize("seed", range(4))
def test_counts_what_simple_models_count(seed, page_map):
    rnd = random.Random(seed)
    models = {name: Model(*options) for name, options in MODELS.items()}
    lines, counting, inside = ["==1== Lackey", "I  04001a2b,3", f" S {MARKS + MAP * STRIDE:08x},8"], False, False
    hot = [rnd.choice([*RANGES, OTHER]) for _ in range(40)]
    hot = [start + rnd.randrange(room - 64) for _, start, room, _ in hot]
    for number in range(12000):
        if number == 3000:
            lines.append(f" S {MARKS + COUNT * STRIDE:08x},8")
            counting = True
        if rnd.random() < 0.01:
            inside = not inside
            lines.append(f" S {MARKS + (ENTER if inside else LEAVE) * STRIDE:08x},8")
            for model in models.values() if inside else ():
                model.enter(counting)
        _, start, room, _ = rnd.choice([*RANGES, OTHER])
        at = rnd.choice(hot) if rnd.random() < 0.7 else start + rnd.randrange(room - 64)
        length = rnd.choice([1, 4, 8, 32, 64])
        if rnd.random() < 0.05:
            at = at // SMALL * SMALL + SMALL - length // 2 # often across an edge
        lines.append(f" {rnd.choice('LSM')} {at:08x},{length}")
        if rnd.random() < 0.5:
            lines.append(f"I  {rnd.randrange(1 << 32):08x},{rnd.randrange(1, 15)}")
        for model in models.values() if inside else ():
            model.access(at, length, counting)
    done = model_of("\n".join(lines) + "\n", page_map, *map(argument, MODELS))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: model.result() for name, model in models.items()}
    assert all(model.misses[SMALL] > 100 and model.flushes >= 3 * bool(model.switch) for model in models.values())


@pytest.mark.parametrize("wrong", ["m:l1=7x2", "m:l1=0", "m:colour=red", "m:l1"])
def test_refuses_what_is_no_model(wrong, page_map):
    assert model_of("", page_map, wrong).returncode == 2
