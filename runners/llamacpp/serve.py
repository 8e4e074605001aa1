"""llama.cpp's server out of the xllamacpp wheel, under the arguments of the stock llama-server.

Runs on the target, so it imports nothing of meltbench. It ends on SIGTERM, like the program it stands for.
"""

import argparse
import signal
import sys

import xllamacpp

NUMBERS = ("threads", "ctx-size", "batch-size", "ubatch-size", "n-gpu-layers", "parallel", "cache-ram", "n-cpu-moe")
LOAD_MODES = {"auto": "AUTO", "mmap": "MMAP", "mlock": "MLOCK", "mmap+mlock": "MMAP_MLOCK", "dio": "DIRECT_IO"}
EXPERTS = r"blk\.{}\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"  # as llama.cpp's common/common.h names them


def parameters(argv: list[str]) -> xllamacpp.CommonParams:
    parser = argparse.ArgumentParser(prog="serve.py", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    for name in NUMBERS:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--override-tensor")
    parser.add_argument("--load-mode", choices=LOAD_MODES)
    given = parser.parse_args(argv)
    params = xllamacpp.CommonParams()
    params.model.path, params.hostnames, params.port = given.model, [given.host], given.port
    params.ui = False
    if given.threads is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given.threads
    for field, value in {
        "n_ctx": given.ctx_size,
        "n_batch": given.batch_size,
        "n_ubatch": given.ubatch_size,
        "n_gpu_layers": given.n_gpu_layers,
        "n_parallel": given.parallel,
        "cache_ram_mib": given.cache_ram,
    }.items():
        if value is not None:
            setattr(params, field, value)
    overrides = [EXPERTS.format(layer) for layer in range(given.n_cpu_moe or 0)]
    overrides += [given.override_tensor] if given.override_tensor else []
    if overrides:
        params.tensor_buft_overrides = ",".join(overrides)
    if given.load_mode:
        params.load_mode = getattr(xllamacpp.llama_load_mode, f"LLAMA_LOAD_MODE_{LOAD_MODES[given.load_mode]}")
    return params


def main() -> None:
    # Python's own handler would run only between the server's calls; the default ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    params = parameters(sys.argv[1:])
    for device in xllamacpp.get_device_info():
        kind = "CPU" if device["name"] == "CPU" else f"using device {device['name']}"
        print(f"xllamacpp {xllamacpp.__version__} {kind} ({device['description']})", file=sys.stderr, flush=True)
    try:
        server = xllamacpp.Server(params)
    except Exception as error:  # noqa: BLE001  whatever llama.cpp says of a model it cannot load is the engine's last line
        sys.exit(f"xllamacpp: {error}")
    print(f"server is listening on {server.listening_address}", file=sys.stderr, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
