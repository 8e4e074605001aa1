"""Gives a plain model its tensors in ONNX Runtime, and prints a line of JSON an inference (engines/inference.py).

Runs on the target, so it imports nothing of meltbench. One inference after the other; what is made to a shape is drawn
by the seed: numbers from 0 to 1, of whole numbers 0 and 1.
"""

import argparse
import json
import sys
import time

import numpy
import onnxruntime

TYPES = {
    "float": "float32", "double": "float64", "float16": "float16",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "bool": "bool",
}  # fmt: skip
MOST_ELEMENTS = 1 << 28


def say(line):
    print(json.dumps(line, separators=(",", ":")), flush=True)


def refuse(why):
    sys.exit(f"onnxruntime: {' '.join(str(why).split())[:500]}")


def arguments(argv):
    parser = argparse.ArgumentParser(prog="infer.py", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--asks", required=True)
    parser.add_argument("--provider", default="CPU")
    for name in ("threads", "graph-level"):
        parser.add_argument(f"--{name}", type=int)
    return parser.parse_args(argv)


def load(given):
    known = {name.removesuffix("ExecutionProvider"): name for name in onnxruntime.get_available_providers()}
    provider = next((name for name in known if name.lower() == given.provider.lower()), None)
    if provider is None:
        refuse(f"this build has no execution provider {given.provider!r}; it has {', '.join(known)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads or 0
    options.inter_op_num_threads = 1
    levels = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
    level = levels[3 if given.graph_level is None else given.graph_level]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    # What the provider cannot do, the processor does; that it was left out altogether shows in get_providers.
    names = [known[provider], *([known["CPU"]] if provider != "CPU" else [])]
    session = onnxruntime.InferenceSession(given.model, options, providers=names)
    used = session.get_providers()[0].removesuffix("ExecutionProvider")
    print(f"onnxruntime {onnxruntime.__version__}: provider {used}", file=sys.stderr, flush=True)
    return session


class Inputs:
    """What a model wants, and what it is given."""

    def __init__(self, session):
        self.wanted = {one.name: one for one in session.get_inputs()}
        for one in self.wanted.values():
            if self.dtype(one) is None:
                refuse(f"input {one.name} is {one.type}: only tensors of numbers can be given")

    @staticmethod
    def dtype(one):
        """The elements of an input in numpy's words, None for what is no tensor of numbers."""
        return TYPES.get(one.type.removeprefix("tensor(").removesuffix(")")) if one.type.startswith("tensor(") else None

    def known(self, names):
        """Refuse names of inputs that the model does not have."""
        if odd := sorted(set(names) - set(self.wanted)):
            refuse(f"the model has no input {odd[0]!r}; it has {', '.join(self.wanted)}")

    def feeds(self, item, given, seed):
        """The arrays of an item, and what is worth telling of them."""
        return self.read(item, given["path"]) if "path" in given else self.made(given["shapes"], seed)

    def made(self, shapes, seed):
        """Arrays drawn to the model's shapes; of a dimension that nobody gives there is one."""
        self.known(shapes)
        rng = numpy.random.default_rng(seed)
        feeds, told = {}, []
        for name, one in self.wanted.items():
            dims, free = shapes.get(name), []
            if dims is None:
                free = [str(dim) for dim in one.shape if not isinstance(dim, int)]
                dims = [dim if isinstance(dim, int) else 1 for dim in one.shape]
            self.check(one, dims)
            if numpy.prod(dims, dtype=object) > MOST_ELEMENTS:
                refuse(f"input {name} has {'x'.join(map(str, dims))} elements, more than can be made")
            feeds[name] = drawn(rng, dims, self.dtype(one))
            told.append(words(name, feeds[name]) + (f" ({', '.join(free)} not given: 1)" if free else ""))
        return feeds, f"made: {', '.join(told)}"

    def read(self, item, path):
        """The arrays of a file, as the model wants them. It may lie by another name than the item's."""
        found = numpy.load(path, allow_pickle=False)  # never what could run code
        if isinstance(found, numpy.ndarray):
            if len(self.wanted) != 1:
                refuse(f"{item} is one array, the model has the inputs {', '.join(self.wanted)}: give a .npz of them")
            feeds = dict.fromkeys(self.wanted, found)
        else:
            with found:
                feeds = {name: found[name] for name in found.files}
        self.known(feeds)
        if lacking := [name for name in self.wanted if name not in feeds]:
            refuse(f"{item} has no array {lacking[0]!r}, which the model wants")
        for name, one in self.wanted.items():
            if str(feeds[name].dtype) != self.dtype(one):
                refuse(f"{item}: {name} is {feeds[name].dtype}, the model wants {self.dtype(one)}")
            self.check(one, feeds[name].shape)
        return feeds, ", ".join(words(name, value) for name, value in feeds.items())

    @staticmethod
    def check(one, dims):
        """Refuse a shape that the model does not take."""
        if not one.shape:  # of one number, or of any shape: the runtime tells them apart no more than this
            return
        said, given = "x".join(map(str, one.shape)), "x".join(map(str, dims))
        if len(dims) != len(one.shape):
            refuse(f"input {one.name} has {len(one.shape)} dimensions ({said}), {len(dims)} are given ({given})")
        if any(isinstance(want, int) and want != got for want, got in zip(one.shape, dims)):  # noqa: B905
            refuse(f"input {one.name} is {said}, {given} is given")


def drawn(rng, dims, dtype):
    if dtype.startswith("float"):
        return rng.random(dims, "float32").astype(dtype)
    return rng.integers(0, 2, dims).astype(dtype)


def words(name, value):
    shape = getattr(value, "shape", None)
    return f"{name} {value.dtype} {'x'.join(map(str, shape)) or 'scalar'}" if shape is not None else f"{name} no tensor"


def infer(session, asks):
    inputs = Inputs(session)
    feeds = {item: inputs.feeds(item, given, asks["seed"]) for item, given in asks["items"].items()}
    names = [one.name for one in session.get_outputs()]
    say({"event": "loaded"})
    told = set()
    for file, item in asks["order"]:
        arrays, what = feeds[item]
        t0 = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        outputs = session.run(None, arrays)
        t1 = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        line = {"event": "inference", "file": file, "t0": t0, "t1": t1}
        if item not in told:
            told.add(item)
            line |= {"in": what, "out": ", ".join(map(words, names, outputs))}
        say(line)


def main():
    given = arguments(sys.argv[1:])
    with open(given.asks, encoding="utf-8") as file:
        asks = json.load(file)
    try:
        infer(load(given), asks)
    except Exception as error:  # noqa: BLE001  whatever the runtime says of what it cannot do is the last line
        refuse(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
