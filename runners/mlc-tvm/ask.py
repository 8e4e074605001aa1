"""Asks a model in MLC's form on Apache TVM's runtime, and prints a line of JSON an event (engines/in_process.py).

Runs on the target, so it imports nothing of meltbench. Greedy, one request after the other. The library's functions are
those of MLC: ``embed``, ``prefill``, ``decode``, ``create_tir_paged_kv_cache`` and ``_metadata``; weights come from its
cache of tensors, texts become tokens by the folder's tokenizer.json and its conversation template.
"""

import argparse
import json
import os
import pathlib
import platform
import struct
import sys
import time

PAGE_TOKENS = 16  # what the kernels of MLC's paged cache are compiled for
SEQUENCE = 0
MOST_BYTES = 4  # of one character, and so tokens of a byte each
CACHES = ("tensor-cache.json", "ndarray-cache.json")
MACHINES = {3: "i686", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}  # e_machine of elf(5)


def say(line):
    print(json.dumps(line, separators=(",", ":")), flush=True)


def refuse(why):
    sys.exit(f"mlc-tvm: {' '.join(str(why).split())[:500]}")


def arguments(argv):
    parser = argparse.ArgumentParser(prog="ask.py", allow_abbrev=False)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--asks", required=True)
    parser.add_argument("--library", type=pathlib.Path)
    for name in ("threads", "ctx-size", "chunk"):
        parser.add_argument(f"--{name}", type=int)
    return parser.parse_args(argv)


def read(path):
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        refuse(f"{path.name} cannot be read: {error}")
    return found if isinstance(found, dict) else refuse(f"{path.name} is no JSON object")


def library_of(folder, named):
    """The compiled library of a model, for this machine: the one that is named, or that of its folder."""
    found = [named] if named else sorted(folder.glob("*.so"))
    if not found:
        refuse(f"{folder} holds no library (*.so): put the one that was compiled for it beside its weights, or name it")
    if len(found) > 1:
        refuse(f"{folder} holds {len(found)} libraries, {found[0].name} and others: leave one there")
    path = found[0]
    with path.open("rb") as file:
        head = file.read(64)
    if len(head) < 64 or head[:4] != b"\x7fELF":
        refuse(f"{path.name} is no library of Linux")
    number = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0]
    machine = MACHINES.get(number, f"machine {number}")
    if machine != platform.machine():
        refuse(f"{path.name} is compiled for {machine}, this machine is {platform.machine()}")
    # Its table of sections ends a library; to load one that was cut would end in a signal.
    table, (each, count) = struct.unpack_from("<Q", head, 40)[0], struct.unpack_from("<HH", head, 58)
    if path.stat().st_size < table + each * count:
        refuse(f"{path.name} is cut short")
    return path


class Weights:
    """The tensors of a model's folder, by name, each read when it is asked for."""

    def __init__(self, folder):
        named = next((folder / name for name in CACHES if (folder / name).is_file()), None)
        if named is None:
            refuse(f"{folder} holds no {CACHES[0]}: its weights are not there")
        self.folder, self.records = folder, {}
        try:
            for shard in read(named)["records"]:
                file = folder / os.path.basename(shard["dataPath"])
                if not file.is_file() or file.stat().st_size != shard["nbytes"]:
                    there = file.stat().st_size if file.is_file() else "no"
                    refuse(f"{file.name} has {there} bytes, {named.name} says {shard['nbytes']}: fetch it again")
                for one in shard["records"]:
                    if not 0 <= one["byteOffset"] <= shard["nbytes"] - one["nbytes"]:
                        refuse(f"{named.name}: {one['name']} lies outside of {file.name}")
                    self.records[one["name"]] = (file, one)
        except (KeyError, TypeError, AttributeError):
            refuse(f"{named.name} is no list of tensors")

    def tensor(self, want):
        """One tensor that the library wants, on the CPU."""
        import numpy
        import tvm

        name, dtype = want["name"], want["dtype"]
        if name not in self.records:
            refuse(f"the weights have no {name}, which the library wants: they are of another model")
        file, one = self.records[name]
        if one["dtype"] != dtype or any(a != b for a, b in zip(one["shape"], want["shape"]) if isinstance(b, int)):  # noqa: B905
            refuse(f"{name} is {one['dtype']} {one['shape']}, the library wants {dtype} {want['shape']}")
        halved = one["format"] == "f32-to-bf16" and dtype == "float32"
        stored = numpy.dtype("uint16" if halved or dtype == "bfloat16" else dtype)
        values = numpy.memmap(file, stored, "r", one["byteOffset"], tuple(one["shape"]))
        if values.nbytes != one["nbytes"]:
            refuse(f"{name} has {one['nbytes']} bytes for {one['shape']}")
        if halved:
            values = (values.astype("uint32") << 16).view("float32")
        if dtype != "bfloat16":
            return tvm.runtime.tensor(values)
        made = tvm.runtime.empty(values.shape, dtype)
        made.copyfrom(numpy.asarray(values))
        return made


class Model:
    """A loaded library with its weights, and what of the sequence lies in its cache."""

    def __init__(self, given):
        import tvm

        self.config = read(given.model / "mlc-chat-config.json")
        path = library_of(given.model, given.library)
        print(f"Apache TVM {tvm.__version__}, {path.name}: using device CPU", file=sys.stderr, flush=True)
        machine = tvm.relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        self.functions = {name: self._function(machine, name) for name in ("embed", "prefill", "decode", "_metadata")}
        self.told = json.loads(self.functions["_metadata"]())
        weights = Weights(given.model)
        self.params = [weights.tensor(one) for one in self.told["params"]]
        self.chunk = min(given.chunk or self.told["prefill_chunk_size"], self.told["prefill_chunk_size"])
        self.room = given.ctx_size or self.told["context_window_size"]
        self.vocabulary = self.config["vocab_size"]
        pages = -(-self.room // PAGE_TOKENS) * PAGE_TOKENS
        sizes = (1, pages, self.chunk, PAGE_TOKENS, 0)
        create = self._function(machine, "create_tir_paged_kv_cache")
        self.cache = create(*(tvm.runtime.ShapeTuple([one]) for one in sizes))
        self.call = {
            name: tvm.get_global_func(f"vm.builtin.kv_state_{name}")
            for name in ("add_sequence", "remove_sequence", "begin_forward", "end_forward", "popn")
        }
        self.tuple, self.tensor, self.held = tvm.runtime.ShapeTuple, tvm.runtime.tensor, []
        self.call["add_sequence"](self.cache, SEQUENCE)

    @staticmethod
    def _function(machine, name):
        try:
            return machine[name]
        except AttributeError:
            refuse(f"the library has no function {name}: it is none of MLC's form")

    def keep(self, count):
        """Leave the first tokens in the cache and remove the others."""
        if count:
            self.call["popn"](self.cache, SEQUENCE, len(self.held) - count)
        else:
            self.call["remove_sequence"](self.cache, SEQUENCE)
            self.call["add_sequence"](self.cache, SEQUENCE)
        del self.held[count:]

    def logits(self, tokens):
        """Evaluate tokens after those in the cache; what follows the last of them."""
        import numpy

        logits = None
        for at in range(0, len(tokens), self.chunk):
            part = tokens[at : at + self.chunk]
            vectors = self.functions["embed"](self.tensor(numpy.array(part, "int32")), self.params)
            vectors = self.tensor(vectors.numpy().reshape(1, len(part), -1))
            self.call["begin_forward"](self.cache, self.tuple([SEQUENCE]), self.tuple([len(part)]))
            function = self.functions["decode" if len(part) == 1 else "prefill"]
            logits = function(vectors, self.cache, self.params)[0]
            self.call["end_forward"](self.cache)
            self.held += part
        return logits.numpy().reshape(-1)


class Words:
    """Texts to tokens and back."""

    def __init__(self, folder, config):
        import tokenizers

        self.path = folder / "tokenizer.json"
        self.tokenizer = tokenizers.Tokenizer.from_file(str(self.path)) if self.path.is_file() else None
        template = config.get("conv_template")
        self.conv = template if isinstance(template, dict) else None
        ends = config.get("eos_token_id")
        ends = ends if isinstance(ends, list) else [ends]
        self.ends = {one for one in [*ends, *(self.conv or {}).get("stop_token_ids", ())] if isinstance(one, int)}

    def tokens(self, ask):
        """The tokens of a request: its own, its text's, or what the conversation template makes of its messages."""
        if ask["tokens"] is not None:
            return ask["tokens"]
        if self.tokenizer is None:
            refuse(f"the model's folder holds no {self.path.name}: its texts cannot be made into tokens")
        if ask["messages"] is None:
            return self.tokenizer.encode(ask["prompt"]).ids
        if self.conv is None:
            refuse("the model has no conv_template in mlc-chat-config.json for messages: give it prompts")
        first = self.conv.get("system_prefix_token_ids") or []
        return first + self.tokenizer.encode(written(self.conv, ask["messages"]), add_special_tokens=False).ids


class Text:
    """The text of an answer as it grows; a character that takes several tokens comes with its last one."""

    def __init__(self, words):
        self.tokenizer, self.tokens, self.start, self.told = words.tokenizer, [], 0, 0

    def add(self, token):
        """What this token adds. What was told last goes before it, for a token's text depends on its neighbour."""
        if self.tokenizer is None:
            return ""
        self.tokens.append(token)
        before = self.tokenizer.decode(self.tokens[self.start : self.told])
        now = self.tokenizer.decode(self.tokens[self.start :])
        if now.endswith("\ufffd") and len(self.tokens) - self.told < MOST_BYTES:
            return ""
        self.start, self.told = self.told, len(self.tokens)
        return now[len(before) :]


def written(conv, messages):
    """The prompt that MLC makes of messages (Conversation.as_prompt of mlc_llm), ready for the answer."""
    system, place = conv.get("system_message", ""), conv.get("system_template", "{system_message}")
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
        if "{system_message}" not in place:
            refuse("the model's conv_template has no place for a system message: leave it out")
    text = place.replace("{system_message}", system)
    begun, seps = text != "", [*conv["seps"], *conv["seps"]]
    for number, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role not in ("user", "assistant"):
            refuse(f"the model's conv_template has no place for a message of {role}")
        if number or not begun or conv.get("add_role_after_system_message", True):
            text += conv["roles"][role] + conv.get("role_content_sep", "")
        form = conv.get("role_templates", {}).get(role, f"{{{role}_message}}")
        text += form.replace(f"{{{role}_message}}", content) + seps[role == "assistant"]
    return text + conv["roles"]["assistant"] + conv.get("role_empty_sep", "")


def answer(model, words, ask):
    """One request from its tokens to its last token, a line a token."""
    say({"event": "start", "file": ask["file"]})
    t_start = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    tokens = words.tokens(ask)
    # The library looks its vectors up by these numbers, and does not look whether they are there.
    if odd := [one for one in tokens if not 0 <= one < model.vocabulary]:
        refuse(f"request {ask['file']} has token {odd[0]}, the vocabulary has {model.vocabulary}")
    room = model.room - len(tokens)
    if not tokens or room < 1:
        refuse(f"request {ask['file']} has {len(tokens)} tokens, the context has room for {model.room}")
    cached = 0
    if ask["keep_cache"]:
        # The last token is evaluated in any case: from its output the first new one is drawn.
        most = min(len(model.held), len(tokens) - 1)
        cached = next((n for n in range(most) if model.held[n] != tokens[n]), most)
    model.keep(cached)
    text = Text(words)
    never = [end for end in words.ends if end < model.vocabulary] if ask["ignore_eos"] else []
    made, stop, t_first, t_last = 0, "limit", 0, 0
    # A prompt alone is over once its first token is drawn, as it is for a server.
    wanted = min(max(ask["n_out"], 1), room)
    fresh = tokens[cached:]
    while made < wanted:
        logits = model.logits(fresh)
        if never:
            logits = logits.copy()
            logits[never] = float("-inf")
        token = int(logits.argmax())
        t_last = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        t_first = t_first or t_last
        made, fresh = made + 1, [token]
        ended = token in words.ends
        say([text.add(token) if ask["n_out"] and not ended else ""])
        if ended:
            stop = "eos"
            break
    say({
        "event": "end",
        "file": ask["file"],
        "n_in": len(tokens),
        "n_cached": cached,
        "n_out": made if ask["n_out"] else 0,
        "prefill_ns": t_first - t_start,
        "decode_ns": t_last - t_first,
        "stop": stop,
    })  # fmt: skip


def main():
    given = arguments(sys.argv[1:])
    with open(given.asks, encoding="utf-8") as file:
        asks = json.load(file)
    if given.threads:
        os.environ["TVM_NUM_THREADS"] = str(given.threads)
    try:
        model = Model(given)
        words = Words(given.model, model.config)
        say({"event": "loaded"})
        for ask in asks:
            answer(model, words, ask)
    except Exception as error:  # noqa: BLE001  whatever the runtime says of what it cannot do is the last line
        said = str(error).strip().splitlines() or [type(error).__name__]
        refuse(f"{type(error).__name__}: {said[-1]}")


if __name__ == "__main__":
    main()
