"""Attacks, rules and tasks that must not start, each with what is said of it."""

from __future__ import annotations

from textwrap import dedent

HEAD = """
import os
import random
import time

import numpy as np
import torch
from torch import nn

from btard.node.aggregation.registry import rule
from btard.node.adversary.registry import attack
from btard.node.training.registry import task
from btard.node.training.sampling import generator_from, generator_from_int
from btard.node.training.task import lay_out, tame

COUNT = [0]
DRAWN = torch.randn(8)
NAMES = {f"layer {place}" for place in range(8)}


class Base:
    name = "base"
    classes = 0
    layout = lay_out((("weights", (8,)),))
    dimension = 8
    train_size = test_size = 8

    def __init__(self, batch_size):
        self.batch_size = batch_size

    def initial(self, seed):
        return torch.randn(8, generator=generator_from_int(seed, "base initial"))

    def changed(self, x_B):
        return x_B

    def gradient(self, parameters_D, seed, transform=None):
        x_B = torch.randn(self.batch_size, 8, generator=generator_from(seed, "base batch"))
        y_B = x_B.sum(dim=1)
        if transform is not None:
            x_B, y_B = transform(x_B, y_B)
        x_B = self.changed(x_B)
        error_B = x_B @ parameters_D - y_B
        return self.sent((error_B[:, None] * x_B).mean(dim=0)), float(error_B.square().mean())

    def sent(self, gradient_D):
        return tame(gradient_D)

    def evaluate(self, parameters_D, start, stop):
        return 0
"""

GLOBAL = "draws from torch's global generator: seed it from the batch's seed, see docs/extending.md"

# What a task's `changed(x_B)` or `sent(gradient_D)` does, or another method, and what is said.
TASKS = {
    "dropout": ("def changed(self, x_B):\n    return nn.Dropout(0.5)(x_B)", f"nn.Dropout {GLOBAL}"),
    "global_noise": ("def changed(self, x_B):\n    return x_B + torch.randn(8)", f"randn {GLOBAL}"),
    "numpy_noise": (
        "def changed(self, x_B):\n    return x_B * float(np.random.rand())",
        "wrong.py line 75: it draws from numpy's global generator",
    ),
    "random_noise": (
        "def changed(self, x_B):\n    return x_B * random.random()",
        "draws from random's global generator",
    ),
    "counter": (
        "def changed(self, x_B):\n    COUNT[0] += 1\n    return x_B * COUNT[0]",
        "keep something between its calls",
    ),
    "process_id": ("def changed(self, x_B):\n    return x_B * os.getpid()", "getpid() is the process id"),
    "clock": ("def changed(self, x_B):\n    return x_B * time.time()", "time() is the clock"),
    "address": ("def changed(self, x_B):\n    return x_B * (1 + id(self) % 1009)", "id() is an address in memory"),
    "hash_order": ("def changed(self, x_B):\n    return x_B * (1 + int(list(NAMES)[0][-1]))", "the order of a set"),
    "at_import": ("def changed(self, x_B):\n    return x_B + DRAWN", "randn draws from torch's global generator"),
    "float64": (
        "def sent(self, gradient_D):\n    return tame(gradient_D).double()",
        "`gradient` returned a float64 tensor of shape (8,); return a contiguous float32 tensor",
    ),
    "not_finite": (
        "def sent(self, gradient_D):\n    return gradient_D / 0",
        "`gradient` returned entries that are not finite",
    ),
    "wrong_length": ("def sent(self, gradient_D):\n    return tame(gradient_D)[:4]", "tensor of shape (4,)"),
    "negative_zeros": (
        "def sent(self, gradient_D):\n    return gradient_D * -0.0",
        "negative zeros; return `tame(gradient)`",
    ),
    "no_pair": (
        "def gradient(self, parameters_D, seed, transform=None):\n    return parameters_D",
        "return a pair (gradient, loss)",
    ),
    "its_input": (
        "def gradient(self, parameters_D, seed, transform=None):\n"
        "    parameters_D *= 2\n    return tame(parameters_D.clone()), 0.0",
        "changed the parameters",
    ),
    "a_view": (
        "def gradient(self, parameters_D, seed, transform=None):\n    return parameters_D, 0.0",
        "returned a view of its parameters",
    ),
    "no_transform": (
        "def gradient(self, parameters_D, seed, transform=None):\n    return parameters_D.clone(), 0.0",
        "does not pass its batch through `transform(inputs, targets)`",
    ),
    "short_signature": (
        "def gradient(self, parameters_D, seed):\n    return parameters_D.clone(), 0.0",
        "raises TypeError",
    ),
    "no_evaluate": ("evaluate = None", "has no `evaluate`"),
    "accuracy": ("def evaluate(self, parameters_D, start, stop):\n    return 0.5", "return how many of 8 are right"),
    "gap": ("dimension = 9", "`layout` does not cover [0, 9)"),
    "it_raises": ("def changed(self, x_B):\n    return x_B / torch.zeros(3)", "raises RuntimeError in wrong.py line"),
}

# Rules: residual, body, what is said.
RULES = {
    "noisy": (
        None,
        "return inputs_NP.mean(dim=0) + 1e-3 * torch.randn(inputs_NP.shape[1])",
        "randn draws from torch's global generator: others must recompute a rule",
    ),
    "first_row": (None, "return inputs_NP[0]", "returned a view of a row"),
    "sorted_rows": (None, "return inputs_NP.mul_(2).mean(dim=0)", "changed the rows"),
    "median_promised": (
        "unclipped",
        "return inputs_NP.median(dim=0).values",
        "does not keep what residual='unclipped' promises",
    ),
    "whole_row": (None, "return inputs_NP.mean(dim=0, keepdim=True)", "tensor of shape (1, 3)"),
    "double": (None, "return inputs_NP.double().mean(dim=0)", "returned a float64 tensor"),
    "undefined": (None, "return inputs_NP.std(dim=0)", "entries that are not finite"),
    "second_row": (None, "return inputs_NP[1].clone()", "raises IndexError in wrong.py line"),
}

# Attacks: where they act, body, what is said.
ATTACKS = {
    "raising": ("gradient", "return gradient_D / COUNT[5]", "raises IndexError in wrong.py line"),
    "half": ("gradient", "return gradient_D[::2]", "return a float32 tensor of shape (64,), as it was given"),
    "nothing": ("gradient", "gradient_D.neg()", "returned None; return a float32 tensor"),
    "in_place": ("gradient", "return gradient_D.neg_()", "changed the tensor that it was given"),
    "short_part": ("aggregate", "return value_P[:1]", "return a float32 tensor of shape"),
    "no_targets": ("data", "return inputs_B", "return a pair (inputs, targets)"),
    "no_body": ("messages", "print(body)", "returned None for a message"),
    "no_sequence": ("outputs", "return output", "return a sequence of outputs"),
}
_TAKEN = {
    "gradient": "gradient_D",
    "aggregate": "value_P",
    "data": "inputs_B, targets_B",
    "messages": "body",
    "outputs": "output",
}


def text() -> str:
    """One file with all of them."""
    parts = [HEAD]
    for name, (method, _) in TASKS.items():
        body = "\n".join(f"    {line}" for line in method.splitlines())
        parts.append(f"class T_{name}(Base):\n{body}\n\n\n@task({name!r}, source='test')\ndef make_{name}(context):\n"
                     f"    return T_{name}(context.batch_size)\n")  # fmt: skip
    for name, (residual, body, _) in RULES.items():
        parts.append(f"@rule({name!r}, source='test', residual={residual!r})\ndef {name}(inputs_NP):\n    {body}\n")
    for name, (acts_on, body, _) in ATTACKS.items():
        parts.append(f"@attack({name!r}, acts_on={acts_on!r}, source='test')\n"
                     f"def {name}({_TAKEN[acts_on]}, view):\n    {body}\n")  # fmt: skip
    return "\n\n".join(parts)


def _static(decorator: str, definition: str) -> str:
    return dedent(f"""
        from btard.node.aggregation.registry import rule
        from btard.node.adversary.registry import attack
        from btard.node.training.registry import task

        {decorator}
        {definition}
        """)


# What is refused while the file is imported: decorator, definition, what is said.
STATIC = {
    "acts_on": (
        "@attack('a', acts_on='gradients', source='test')",
        "def a(gradient_D, view): return gradient_D",
        "acts_on='gradients' is none of gradient, data, aggregate, messages, outputs, node; did you mean 'gradient'?",
    ),
    "residual": (
        "@rule('r', source='test', residual='clipd')",
        "def r(inputs_NP): return inputs_NP[0]",
        "residual='clipd' is none of 'clipped', 'unclipped' and None; did you mean 'clipped'?",
    ),
    "clipped without a radius": (
        "@rule('r', source='test', residual='clipped')",
        "def r(inputs_NP): return inputs_NP[0]",
        "has no parameter 'radius'",
    ),
    "no view": (
        "@attack('a', acts_on='gradient', source='test')",
        "def a(gradient_D): return gradient_D",
        "cannot be called with (gradient_D, view): too many positional arguments",
    ),
    "one too many": (
        "@attack('a', acts_on='gradient', source='test')",
        "def a(gradient_D, view, more): return gradient_D",
        "missing a required argument: 'more'",
    ),
    "no default": (
        "@attack('a', acts_on='gradient', source='test')",
        "def a(gradient_D, view, *, share): return gradient_D",
        "missing a required argument: 'share'",
    ),
    "before the star": (
        "@attack('a', acts_on='gradient', source='test')",
        "def a(gradient_D, view, share=1.0): return gradient_D",
        "has its parameter 'share' before the `*`",
    ),
    "parameter type": (
        "@rule('r', source='test', residual=None)",
        "def r(inputs_NP, *, weights=(1, 2)): return inputs_NP[0]",
        "the default of 'weights' is a tuple",
    ),
    "no function": ("", "task('t', source='test')(7)", "is a int, no function"),
    "remembers": (
        "@attack('a', acts_on='gradient', source='test', remembers='delay')",
        "def a(gradient_D, view): return gradient_D",
        "has no parameter 'delay'",
    ),
    "context": ("@task('t', source='test')", "def t(): return None", "cannot be called with (context)"),
    "node": (
        "@attack('a', acts_on='node', source='test')",
        "def a(view): return None",
        "missing a required argument: 'view'",
    ),
}


def static_text(name: str) -> str:
    """A file with one of them."""
    decorator, definition, _ = STATIC[name]
    return _static(decorator, definition)
