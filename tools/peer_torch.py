"""The PyTorch side of `rfa bench --peer torch`.

argv: a safetensors file with q, k, v as (batch, seq, heads, dim); cpu or cuda:N; threads (0: as
PyTorch likes); the mask, none or causal. Says "ready NAME..." with the implementations of
scaled_dot_product_attention that take these tensors, then answers each line "time NAME CALLS" with
the seconds of one call.
"""
import json
import sys
import time


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def load(path, device):
    """q, k, v as (batch, heads, seq, dim) views, which is what PyTorch's function takes."""
    import torch

    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    tensors = []
    for name in "qkv":
        entry = header[name]
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(data, dtype=torch.uint8, count=end - begin, offset=begin).clone()
        tensor = flat.view(types[entry["dtype"]]).view(entry["shape"])
        tensors.append(tensor.to(device).transpose(1, 2))
    return tensors


def implementations(tensors, device, causal):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    names = {"flash": SDPBackend.FLASH_ATTENTION}
    if device != "cpu":
        names = {"cudnn": SDPBackend.CUDNN_ATTENTION, **names}
    usable = {}
    for name, backend in names.items():
        def call(backend=backend):
            with sdpa_kernel(backend), torch.no_grad():
                return torch.nn.functional.scaled_dot_product_attention(
                    *tensors, is_causal=causal)
        try:
            call()
            usable[name] = call
        except RuntimeError as error:
            sys.stderr.write(f"rfa bench: torch's {name} does not take these tensors: {error}\n")
    return usable


def timed(call, calls, device):
    import torch

    if device == "cpu":
        time.sleep(0.05)  # until the other side's threads sleep: bench_measure.c says why
        call()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls


def main():
    path, device, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        import torch

        if threads > 0:
            torch.set_num_threads(threads)
        if device != "cpu":
            torch.cuda.set_device(device)  # events are made on the current one
        usable = implementations(load(path, device), device, sys.argv[4] == "causal")
    except Exception as error:  # whatever it is, one line says it
        say("error " + " ".join(str(error).split()))
        return
    say(" ".join(["ready"] + ["torch-" + name for name in usable]))
    for line in sys.stdin:
        _, name, calls = line.split()
        say(repr(timed(usable[name.removeprefix("torch-")], int(calls), device)))


main()
