"""Asks llama.cpp inside this process, by llama-cpp-python, and prints a line of JSON an event (engines/in_process.py).

Runs on the target, so it imports nothing of meltbench. Greedy, one request after the other; what two prompts have in
common from their start is kept where a request says so, else everything is evaluated afresh.
"""

import argparse
import codecs
import json
import sys
import time

import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter


def say(line):
    print(json.dumps(line, separators=(",", ":")), flush=True)


_DEBUG = 1  # of ggml_log_level; a line a tensor, which would fill what is kept of an engine's words


@llama_cpp.llama_log_callback
def log(level, text, _):
    if level != _DEBUG:
        sys.stderr.write(text.decode("utf-8", "replace"))


def arguments(argv):
    parser = argparse.ArgumentParser(prog="ask.py", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--asks", required=True)
    for name in ("threads", "ctx-size", "batch-size", "ubatch-size", "n-gpu-layers", "flash-attn"):
        parser.add_argument(f"--{name}", type=int)
    return parser.parse_args(argv)


def load(given):
    # What is not given is llama.cpp's to choose: 0 is the context the model was made for, -1 all layers on a GPU.
    settings = {
        "n_threads": given.threads,
        "n_threads_batch": given.threads,
        "n_batch": given.batch_size,
        "n_ubatch": given.ubatch_size,
        "flash_attn": None if given.flash_attn is None else bool(given.flash_attn),
    }
    return llama_cpp.Llama(
        given.model,
        n_ctx=given.ctx_size or 0,
        n_gpu_layers=-1 if given.n_gpu_layers is None else given.n_gpu_layers,
        **{key: value for key, value in settings.items() if value is not None},
    )


def word(llama, token):
    """A special token as a template has it; a model without one has -1."""
    return llama.detokenize([token], special=True).decode("utf-8", "replace") if token >= 0 else ""


def prompt_of(llama, ask):
    """The tokens of a request: its own, its text's, or what the model's chat template makes of its messages."""
    if ask["tokens"] is not None:
        return ask["tokens"]
    text = ask["prompt"]
    if ask["messages"] is not None:
        template = llama.metadata.get("tokenizer.chat_template")
        if template is None:
            sys.exit("the model has no chat template for messages: give it prompts")
        bos, eos = word(llama, llama.token_bos()), word(llama, llama.token_eos())
        text = Jinja2ChatFormatter(template, eos, bos)(messages=ask["messages"]).prompt
        if llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(llama.model)):
            text = text.removeprefix(bos)  # the tokenizer puts it there, and once is enough
    return llama.tokenize(text.encode("utf-8"), add_bos=True, special=True)


def sampler(llama, ignore_eos):
    """Greedy; an end-of-text token that is to be ignored is never the best one."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    if ignore_eos:
        ends = [token for token in range(llama.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, token)]
        never = [llama_cpp.llama_logit_bias(token, float("-inf")) for token in ends]
        biases = (llama_cpp.llama_logit_bias * len(never))(*never)
        bias = llama_cpp.llama_sampler_init_logit_bias(llama.n_vocab(), len(never), biases)
        llama_cpp.llama_sampler_chain_add(chain, bias)
    llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_greedy())
    return chain


def kept(llama, ask, tokens):
    """How much of the prompt the cache holds already; the rest of the cache is removed."""
    same = 0
    if ask["keep_cache"]:
        held = llama.input_ids[: llama.n_tokens].tolist()
        # The last token is evaluated in any case: from its output the first new one is drawn.
        while same < min(len(held), len(tokens) - 1) and held[same] == tokens[same]:
            same += 1
    memory = llama_cpp.llama_get_memory(llama.ctx)
    if same and llama_cpp.llama_memory_seq_rm(memory, 0, same, -1):
        return same
    llama_cpp.llama_memory_clear(memory, True)
    return 0


def answer(llama, ask, chain):
    """One request from its tokens to its last token, a line a token."""
    say({"event": "start", "file": ask["file"]})
    t_start = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    tokens = prompt_of(llama, ask)
    room = llama.n_ctx() - len(tokens)
    if not tokens or room < 1:
        sys.exit(f"request {ask['file']} has {len(tokens)} tokens, the context has room for {llama.n_ctx()}")
    cached = llama.n_tokens = kept(llama, ask, tokens)
    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    words = codecs.getincrementaldecoder("utf-8")("replace")
    made, stop, t_first, t_last = 0, "limit", 0, 0
    # A prompt alone is over once its first token is drawn, as it is for a server.
    wanted = min(max(ask["n_out"], 1), room)
    fresh = tokens[cached:]
    while made < wanted:
        llama.eval(fresh)
        token = llama_cpp.llama_sampler_sample(chain, llama.ctx, -1)
        t_last = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        t_first = t_first or t_last
        made, fresh = made + 1, [token]
        ended = bool(llama_cpp.llama_vocab_is_eog(vocab, token))
        say([words.decode(llama.detokenize([token])) if ask["n_out"] and not ended else ""])
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
    llama_cpp.llama_log_set(log, None)
    with open(given.asks, encoding="utf-8") as file:
        asks = json.load(file)
    try:
        llama = load(given)
    except Exception as error:  # noqa: BLE001  whatever the binding says of a model it cannot load is the last line
        sys.exit(f"llama-cpp-python: {error}")
    chains = {ignore: sampler(llama, ignore) for ignore in {ask["ignore_eos"] for ask in asks}}
    say({"event": "loaded", "version": llama_cpp.__version__})
    for ask in asks:
        answer(llama, ask, chains[ask["ignore_eos"]])


if __name__ == "__main__":
    main()
