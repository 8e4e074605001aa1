"""What the definition of a workload may say: its kind, its settings, their bounds, and which of them mean something."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

from meltbench import arms, tensors
from meltbench.engines.prompts import Kind
from meltbench.errors import DefinitionError, UserError
from meltbench.measure.answers import Method  # noqa: TC001  read_table looks at it
from meltbench.measure.likelihood import Normalise  # noqa: TC001
from meltbench.questions.load import MAX_ITEMS, Data

MAX_LEVEL = 64
GATE_HOLD_S = 60.0  # how long the thermal gate wants a steady temperature: less time to wait could only run out
CHARGE_LIMIT = "charge_timeout_s"
SAMPLING = ("temperature", "top_k", "top_p", "repeat_penalty")
_BEFORE = ("idle_s", "gate_timeout_s", CHARGE_LIMIT)
_BETWEEN = ("pause_s", *SAMPLING)
_OF_SET = ("data", "examples", "shots", "n_items", "subset")
_ARMS = ("chat", "thinking", "budget", "soft", "samples")
_KNOBS: dict[Kind, tuple[str, ...]] = {
    "generate": (*_BEFORE, "timeout_s", "warmup", "repeat", "max_tokens", "concurrency", *_BETWEEN, *_OF_SET, *_ARMS),
    "chat": (*_BEFORE, "timeout_s", "warmup", "repeat", "max_tokens", *_BETWEEN),
    "grid": (*_BEFORE, "timeout_s", "warmup", "repeat", "points"),
    "sustained": (
        *(*_BEFORE, "timeout_s", "warmup", "max_tokens"),
        *("limit_s", "limit_temp_c", "limit_soc_percent"),
        *_BETWEEN,
    ),
    "choices": (*_BEFORE, "timeout_s", *_OF_SET, "normalise"),
    "perplexity": (*_BEFORE, "timeout_s", "data", "chunk", "chunks", "reference"),
    "infer": (*_BEFORE, "timeout_s", "warmup", "repeat", "inputs", "shape"),
    "idle": (*_BEFORE, "window_s"),
    "exec": (*_BEFORE, "timeout_s"),
}
BY_TOKEN: tuple[Kind, ...] = ("choices", "perplexity")  # kinds that are scored a token at a time
OF_LANGUAGE: tuple[Kind, ...] = ("generate", "chat", "grid", "sustained", *BY_TOKEN)  # kinds that need a language model
ASKED: tuple[Kind, ...] = (*OF_LANGUAGE, "infer")  # kinds that need an engine
SETTINGS = {key for keys in _KNOBS.values() for key in keys}
_OF_ITEMS: tuple[Kind, ...] = ("generate", "chat", "sustained", *BY_TOKEN)
_RANGES = {
    "gate_timeout_s": (0, 7200),
    "charge_timeout_s": (0, 86_400),
    "idle_s": (0, 3600),
    "warmup": (0, 100),
    "repeat": (1, 10_000),
    "max_tokens": (1, 1_000_000),
    "window_s": (0.1, 86_400),
    "timeout_s": (1, 86_400),
    "limit_s": (1, 86_400),
    "limit_temp_c": (1, 150),
    "limit_soc_percent": (1, 99),
    "pause_s": (0, 600),
    "temperature": (0, 5),
    "top_k": (1, 1_000_000),
    "top_p": (0, 1),
    "repeat_penalty": (0.1, 10),
    "n_items": (1, MAX_ITEMS),
    "subset": (1, MAX_ITEMS),
    "shots": (0, 64),
    "chunk": (8, 1_000_000),
    "chunks": (1, 100_000),
}
_LISTS = {"concurrency": MAX_LEVEL, "samples": MAX_LEVEL, "budget": 1_000_000}
# Fields that came later than the first stored runs: at their defaults they change no identity.
_LATER = (
    *("cite", "questions", *_OF_SET, "score", "normalise", "chunk", "chunks"),
    *("reference", "inputs", "shape", *_ARMS),
)


@dataclass(frozen=True)
class Workload:
    """A workload as defined in workloads/NAME.toml.

    ``kind``: ``generate`` asks the items of a JSONL file, ``chat`` the turns of conversations, ``grid`` points such as
    pp512 or tg128@d4096; ``sustained`` asks its items in a circle for ``limit_s``, or until a thermal zone reaches
    ``limit_temp_c`` or a battery falls to ``limit_soc_percent``; ``idle`` measures doing nothing for ``window_s``,
    ``exec`` meters a command. ``repeat`` passes over all items are timed after ``warmup`` requests, with
    ``concurrency`` requests under way at a time: one level after the other where there are several. ``timeout_s``
    bounds each request and the command of ``exec``, and the wait for an engine to be ready (at most five minutes).
    ``gate_timeout_s`` bounds the wait for a steady temperature beforehand; 0: there is none. ``charge_timeout_s``
    bounds that for a battery which is below the window of charge that its profile wants. ``pause_s`` are waited
    before each request, the warm-up too. ``temperature`` 0 takes the best token each time; above it ``top_k`` and
    ``top_p`` bound the choice; ``repeat_penalty`` is llama.cpp's. None leaves each to the engine.

    ``score``: how generated answers are compared with the right ones (meltbench.measure.answers). ``choices`` takes
    the likeliest of several endings, by their log-likelihood ``normalise``d; ``perplexity`` scores a text in chunks of
    ``chunk`` tokens, ``chunks`` of them, held against a model of ``reference`` where one is named. ``questions``: where
    a set of questions is; ``data`` and ``examples`` are files that stand in for it, ``n_items`` the first so many,
    ``subset`` so many of those, the same for everybody (meltbench.questions.subset); ``shots`` solved ones go before
    each. ``chat``: each prompt is a message of a user; ``thinking``: whether a model that can is to reason before it
    answers. ``budget``: how many tokens an answer may have, several in turn, cut off there or (``soft``) told to the
    model. ``samples``: how many answers to each question are asked for at a time and voted on, several numbers in turn.
    ``cite``: the source of all this.

    ``infer`` gives a plain model its ``inputs``, a file of arrays or a folder of them, or arrays made to the ``shape``
    of each input; the first of its ``warmup`` inferences is told apart.
    """

    title: str
    version: int
    kind: Kind
    gate_timeout_s: float = 300.0
    charge_timeout_s: float = 3600.0
    idle_s: float = 10.0
    warmup: int = 1
    repeat: int = 1
    max_tokens: int = 64
    ignore_eos: bool = True
    window_s: float = 10.0
    timeout_s: float = 600.0
    items: str | None = None
    points: tuple[str, ...] = ()
    concurrency: tuple[int, ...] = (1,)
    limit_s: float = 600.0
    limit_temp_c: float | None = None
    limit_soc_percent: float | None = None
    pause_s: float = 0.0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repeat_penalty: float | None = None
    cite: str = ""
    questions: Data | None = None
    data: str | None = None
    examples: str | None = None
    shots: int = 0
    n_items: int | None = None
    subset: int | None = None
    chat: bool = False
    thinking: Literal["on", "off"] | None = None
    budget: tuple[int, ...] = ()
    soft: bool = False
    samples: tuple[int, ...] = (1,)
    score: Method | None = None
    normalise: Normalise = "none"
    chunk: int = 512
    chunks: int | None = None
    reference: str | None = None
    inputs: str | None = None
    shape: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What of it must be equal for two runs to be alike; of files what they hold, which is in the items' hash."""
        return {
            key: value for key, value in self.told().items() if key not in ("data", "examples", "inputs", "reference")
        }

    def told(self) -> dict[str, Any]:
        """As JSON-ready data, without what is as if nobody had said it."""
        every = {field.name: field.default for field in fields(self)}
        row = asdict(self)
        return {key: value for key, value in row.items() if key not in _LATER or value != every[key]}

    @property
    def sampling(self) -> dict[str, float]:
        """How tokens are drawn, where it is not just the best one; by the names that llama.cpp's server knows."""
        return {name: value for name in SAMPLING if (value := getattr(self, name))}

    @property
    def knobs(self) -> tuple[str, ...]:
        """The settings that change what this kind does."""
        return _KNOBS[self.kind]

    def check(self, where: str) -> None:
        """Refuse values that cannot be run."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{where}: {name} = {value} is out of range", hint=f"give {low} to {high}")
        if 0 < self.gate_timeout_s < GATE_HOLD_S:
            said, hint = f"gate_timeout_s = {self.gate_timeout_s:g}", f"give {GATE_HOLD_S:g} or more, or 0 for no gate"
            raise UserError(f"{where}: {said} is shorter than the {GATE_HOLD_S:g} s that a gate watches", hint=hint)
        if not self.temperature and (self.top_k or self.top_p is not None):
            raise UserError(f"{where}: top_k and top_p change nothing at temperature 0", hint="write temperature = 0.9")
        if self.kind == "grid" and not self.points:
            raise DefinitionError(f"{where}: a grid needs points", hint="such as pp512,tg128")
        if self.kind in _OF_ITEMS and not self.items and self.questions is None:
            raise DefinitionError(f"{where}: kind {self.kind} needs items", hint='write items = "name.jsonl"')
        self._check_set(where)
        self._check_tensors(where)
        for name, most in _LISTS.items():
            levels = getattr(self, name)
            missing = not levels and name != "budget"
            if missing or len(set(levels)) != len(levels) or not all(1 <= level <= most for level in levels):
                said = ",".join(map(str, levels))
                hint = f"give levels of 1 to {most}, none of them twice, such as 1,2,4"
                raise UserError(f"{where}: {name} = {said} cannot be run", hint=hint)
        self._check_arms(where)

    def _check_set(self, where: str) -> None:
        """Settings of a set of questions mean nothing without one."""
        for name in ("data", "examples", "shots"):
            if getattr(self, name) and self.questions is None:
                raise UserError(f"{where}: {name} is for workloads of a set of questions", hint="leave it out")
        if self.examples and not self.shots:
            raise UserError(f"{where}: examples are shown where there are shots", hint="--set shots=5")
        if self.normalise == "mass" and self.questions is not None and self.questions.recipe != "truthfulqa-mc2":
            raise UserError(f"{where}: normalise = mass needs several true answers", hint="--set normalise=none")

    def _check_tensors(self, where: str) -> None:
        """What a plain model is given, and that its first inference is never a timed one."""
        tensors.shapes(self.shape)
        if self.inputs is not None and self.shape:
            raise UserError(f"{where}: the arrays of inputs have their own shape", hint="leave out shape, or inputs")
        if self.kind == "infer" and self.warmup < 1:
            raise UserError(f"{where}: the first inference is no timed one", hint="give warmup = 1 or more")

    def _check_arms(self, where: str) -> None:
        """Ways of asking that change nothing, or cannot be told apart."""
        if not arms.plain(self) and self.concurrency != (1,):
            raise UserError(
                f"{where}: concurrency is of questions asked once each", hint="leave it out, or samples and budget"
            )
        if self.samples != (1,) and not self.temperature:
            hint = "--set temperature=0.7 draws different ones"
            raise UserError(f"{where}: several answers at temperature 0 are the same answer", hint=hint)
        if self.soft and not self.budget:
            raise UserError(f"{where}: soft is of a budget", hint="--set budget=256")
        if self.budget and self.ignore_eos:
            raise UserError(f"{where}: a budget bounds answers that end by themselves", hint="set ignore_eos = false")

    def check_keys(self, where: str) -> None:
        """Refuse what is set and would change nothing of this kind."""
        own = {
            "timeout_s",
            "cite",
            *self.knobs,
            *(("items", "ignore_eos", "questions") if self.kind in _OF_ITEMS else ()),
        }
        own |= {"score"} if self.kind == "generate" else set()
        for field in fields(self):
            default = field.default
            if field.name not in own and default is not MISSING and getattr(self, field.name) != default:
                raise DefinitionError(f"{where}: {no_setting(field.name, self.kind)}", hint="leave it out")


def no_setting(key: str, kind: Kind) -> str:
    """That a setting does nothing for a kind, and for which kinds it does."""
    having = [name for name in get_args(Kind) if key in _KNOBS[name]]
    return f"{key} is no setting of kind {kind}" + (f", only of {' and '.join(having)}" if having else "")
