"""Questions with a right answer: sets of them are read from a file or the hub, and become the items of a workload.

A set is named by a workload (``[questions]`` in workloads/NAME.toml) and read from ``--set data=PATH``, or fetched
from the hub once. Its rows become items by a ``recipe``, which has the prompt of the paper that it cites, or of
lm-evaluation-harness. An item is a mapping:

    id       unique in the set                    group    what it is summed up with, such as a subject
    prompt   what goes before the answer          answer   the right one, as text; of choices its number, from 0
    choices  what may follow the prompt           stop     what ends an answer
    text     of perplexity: what is to be scored
"""

from __future__ import annotations

from meltbench.questions.load import Data, Set, load_set
from meltbench.questions.recipes import RECIPES

__all__ = ["RECIPES", "Data", "Set", "load_set"]
