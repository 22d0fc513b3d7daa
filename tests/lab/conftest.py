# SPDX-License-Identifier: BSD-3-Clause
"""Modules of lab/, which has them beside each other."""
import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[2] / "lab"


@pytest.fixture
def lab(monkeypatch):
    """Import a module of lab/."""
    monkeypatch.syspath_prepend(str(LAB))
    yield importlib.import_module
    for name in [name for name, module in sys.modules.items() if str(LAB) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


@pytest.fixture
def lab_run(lab):
    """lab/run as a module."""
    loader = importlib.machinery.SourceFileLoader("lab_run", str(LAB / "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("lab_run", loader))
    loader.exec_module(module)
    return module
