"""Training on 1 and 2 processes, measured; on 8 and 64 GPUs, a model whose inputs are measured, blank where one is not.

    python benchmarks/scaling.py                                # about 5 minutes on two cores
    python benchmarks/scaling.py --repeats 2 --batch 2 --size 64 --images 32   # a quick look: writes no file
    python benchmarks/scaling.py --repeats 2 --batch 2 --size 64 --gpu_step 0.11 --gpu_batch 128 --node_bandwidth 150 \\
        --network_bandwidth 45 --latency 10 --node_cores 96     # a plan: the model with inputs of your own, marked "given"

Expected on two idle cores: two processes reach at least 1.6 times the images/s of one (CPU, one thread each); the model's
step of two processes is within 20 % of the measured one.

Measured, in two processes that take turns at being alone: the compute of a step (forward, loss, backward, optimizer, moving
average) of one process alone, of both at once, and of both with their gradients reduced; the bytes that are reduced (counted in
DistributedDataParallel's own buckets); an all-reduce of as many bytes by itself, which gives the bandwidth; a small one, which
gives the latency; what the processes agree on in every step; the images a second that one core decodes and augments. With
two GPUs or more the processes are on those; with one, its compute alone is measured, and the bandwidth stays blank.

The model, of W = N x G GPUs on N nodes of G, with a batch of B each and A batches in a step:

    step(W)   = max(A c + e(W) + f,  A G B / R)          R = r x cores of a node
    e(W)      = max(0, a(W) - o c)                        o = 0 (nothing overlaps) to 2/3 (all of the backward pass does)
    a(W)      = 2 (G-1)/G V / b_node + 2 (N-1)/N V / b_net + 2 (W-1) l
    images/s  = W A B / step(W)

c is the compute of a batch [s], V the bytes of the gradients, b_node and b_net the bandwidths of a node's links and of
its network cards [bytes/s], l the latency of a message [s], f the agreements of a step [s], r the images/s of a core. Where it
stops: a node can feed no more than G* = R c / B of its GPUs; and from W* = 1 + (A c + 2 V / b) / (2 l) on, with b the smaller
bandwidth, the latency is half of a step, and twice the GPUs give less than 4/3 of the images/s.
Writes benchmarks/results/scaling.json and prints tables.
"""

import argparse
import copy
import json
import os
import socket
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.multiprocessing as mp
from machine import describe_machine
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import TrainTransform
from csl.garments import make_garments
from csl.labels import read_annotations
from csl.losses import PartialSelectiveLoss
from csl.machine import distributed
from csl.models import create_model
from csl.predict.scoring import autocast_dtype, choose_device
from csl.runs.config import TrainConfig
from csl.training.optim import ModelEma, create_optimizer

RESULTS = Path(__file__).parent / "results" / "scaling.json"
CLASSES = 80
BUCKET = 25 * 2**20  # bytes: DistributedDataParallel's own default
OVERLAPS = {"none": 0.0, "all of the backward pass": 2 / 3}  # o, as a share of a batch's compute
OPENIMAGES = 9_011_219  # training images


# ---------------------------------------------------------------------------------------------------------- measuring


def in_process(rank, world_size, port, folder, args):
    """What one process measures; rank 0 writes it."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 filters, whose memory is the same
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    with distributed.process_group(args.device):
        found = measure(choose_device(args.device), folder, args)
        if distributed.is_main():
            (Path(folder) / "measured.json").write_text(json.dumps(found))


def measure(device, folder, args):
    batch = args.gpu_batch if device.type == "cuda" else args.batch
    torch.manual_seed(0)
    criterion = PartialSelectiveLoss("selective", likelihood_topk=5).to(device)
    model = create_model(args.model, num_classes=CLASSES).to(device, memory_format=torch.channels_last).train()
    x = torch.rand(batch, 3, args.size, args.size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(-1, 2, (batch, CLASSES), device=device)
    dtype = autocast_dtype("auto", device)
    together = distributed.world_size() > 1
    networks, volume = {False: model}, []  # whether its gradients are reduced -> network
    if together:
        twin = DistributedDataParallel(copy.deepcopy(model), device_ids=[device] if device.type == "cuda" else None)
        twin.register_comm_hook(volume, count_and_reduce)
        networks[True] = twin
    optimizers = {
        reduced: create_optimizer(network, "adam", lr=1e-4, weight_decay=1e-4) for reduced, network in networks.items()
    }
    plain = {reduced: network.module if reduced else network for reduced, network in networks.items()}
    averages = {reduced: ModelEma(network, TrainConfig.ema_decay) for reduced, network in plain.items()}

    def step(reduced):
        optimizer = optimizers[reduced]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            logits = networks[reduced](x)
        criterion(logits.float(), targets).backward()
        optimizer.step()
        averages[reduced].update(plain[reduced])

    times = {name: [] for name in ("alone", "at once", "reduced", "all-reduce", "small all-reduce", "agreements")}
    gradients = torch.zeros(sum(p.numel() for p in model.parameters()), device=device)
    small = torch.zeros(1, device=device)
    for repeat in range(args.repeats + 1):  # the first is for warming up
        volume.clear()
        turn = {"alone": (lambda: step(False)) if distributed.is_main() else (lambda: None)}
        if together:
            turn |= {
                "at once": lambda: step(False),
                "reduced": lambda: step(True),
                "all-reduce": lambda: [distributed.all_reduce_sum(part) for part in gradients.split(BUCKET // 4)],
                "small all-reduce": lambda: distributed.all_reduce_sum(small),
                "agreements": lambda: [distributed.all_reduce_max(0) for _ in range(3)],
            }
        for name, function in turn.items():
            seconds = timed(function, device)
            if repeat:
                times[name].append(seconds)
    return {
        "device": device.type,
        "processes": distributed.world_size(),
        "batch": batch,
        "gradient_bytes": sum(volume) if together else gradients.numel() * gradients.element_size(),
        "seconds": {name: statistics.median(values) for name, values in times.items() if values},
        "loader_images_per_s": loader_rate(folder, args),
    }


def count_and_reduce(volume, bucket):
    """The usual reduction, which notes how many bytes it sends."""
    volume.append(bucket.buffer().numel() * bucket.buffer().element_size())
    return allreduce_hook(None, bucket)


def timed(function, device):
    """Seconds, from when all processes are here to when this one is done."""
    distributed.barrier()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def loader_rate(folder, args):
    """Images a second that one core reads, decodes, resizes and augments: rank 0's alone, and of all at once."""
    annotations = read_annotations(folder, split="train")
    dataset = ImageDataset(annotations, TrainTransform(args.size, "original"), seed=0)
    rates = {}
    for name, busy in (("alone", distributed.is_main()), ("at once", True)):
        loader = create_loader(dataset, args.batch, workers=0, shuffle_seed=0)

        def read(loader=loader, busy=busy):
            for _ in loader if busy else ():
                pass

        timed(read, torch.device("cpu"))  # the files are in memory then
        seconds = timed(read, torch.device("cpu"))
        rates[name] = len(dataset) / seconds
    return rates


# ----------------------------------------------------------------------------------------------------------- the model


def model_step(inputs, nodes, gpus, overlap, accumulated=1):
    """Seconds of a step by the formula above, None where an input is not known: (step, of it exposed communication, loader)."""
    needed = ["compute_s", "batch", "gradient_bytes", "agreements_s"]
    needed += ["node_bandwidth", "latency_s"] if gpus > 1 else []
    needed += ["network_bandwidth", "latency_s"] if nodes > 1 else []
    needed += ["loader_images_per_s_core", "node_cores"]
    missing = [name for name in dict.fromkeys(needed) if inputs.get(name) is None]
    if missing:
        return None, missing
    c, volume = inputs["compute_s"], inputs["gradient_bytes"]
    reduce = 0.0
    if gpus > 1:
        reduce += 2 * (gpus - 1) / gpus * volume / inputs["node_bandwidth"]
    if nodes > 1:
        reduce += 2 * (nodes - 1) / nodes * volume / inputs["network_bandwidth"]
    if nodes * gpus > 1:
        reduce += 2 * (nodes * gpus - 1) * inputs["latency_s"]
    exposed = max(0.0, reduce - overlap * c)
    loading = accumulated * gpus * inputs["batch"] / (inputs["loader_images_per_s_core"] * inputs["node_cores"])
    step = max(accumulated * c + exposed + inputs["agreements_s"], loading)
    return {"step_s": step, "reduce_s": reduce, "exposed_s": exposed, "loader_s": loading}, []


def model_row(inputs, nodes, gpus, overlap_name):
    found, missing = model_step(inputs, nodes, gpus, OVERLAPS[overlap_name])
    row = {"model": True, "nodes": nodes, "gpus": nodes * gpus, "overlap": overlap_name, "missing": missing}
    if found is None:
        return row
    rate = nodes * gpus * inputs["batch"] / found["step_s"]
    efficiency = rate / (nodes * gpus * inputs["batch"] / inputs["compute_s"])
    limit = "loader" if found["step_s"] == found["loader_s"] else "communication" if efficiency < 0.5 else "compute"
    hours = OPENIMAGES / rate / 3600
    return row | found | {"images_per_s": rate, "efficiency": efficiency, "limit": limit, "openimages_h_epoch": hours}


def where_it_stops(inputs):
    """GPUs of a node that its loader feeds, and GPUs at which latency is half of a step; None where not known."""
    known = inputs.get
    feeds = latency = None
    if all(known(name) is not None for name in ("compute_s", "batch", "loader_images_per_s_core", "node_cores")):
        feeds = known("loader_images_per_s_core") * known("node_cores") * known("compute_s") / known("batch")
    bandwidths = [known("node_bandwidth"), known("network_bandwidth")]
    if None not in bandwidths and known("compute_s") is not None and known("latency_s") is not None:
        rest = known("compute_s") + 2 * known("gradient_bytes") / min(bandwidths)
        latency = 1 + rest / (2 * known("latency_s"))
    return {"gpus_fed_by_a_node": feeds, "gpus_at_which_latency_is_half": latency}


# ------------------------------------------------------------------------------------------------------------- tables


def shown(value, form="{:.4g}", unit=""):
    return "not measured" if value is None else form.format(value) + unit


def measured_rows(found):
    """1 and 2 processes, and how well the model predicts the second."""
    seconds, batch = found["seconds"], found["batch"]
    rows = [{"processes": 1, "step_s": seconds["alone"], "images_per_s": batch / seconds["alone"]}]
    if found["processes"] > 1:
        reduce, volume = seconds["all-reduce"], found["gradient_bytes"]
        predicted = seconds["at once"] + reduce
        rows.append(
            {
                "processes": 2,
                "step_s": seconds["reduced"],
                "images_per_s": 2 * batch / seconds["reduced"],
                "speed_up": 2 * seconds["alone"] / seconds["reduced"],
                "compute_both_at_once_s": seconds["at once"],
                "reduce_s": reduce,
                "reduced_bytes": volume,
                "bus_bytes_per_s": volume / reduce,  # 2 (W - 1) / W = 1
                "agreements_s": seconds["agreements"],
                "latency_s": seconds["small all-reduce"] / 2,
                "model_step_s": predicted,
                "model_error": predicted / seconds["reduced"] - 1,
            }
        )
    return rows


def inputs_of_model(found, args):
    """What is measured here or given, and None for the rest; and where each value is from."""
    seconds, on_gpu = found["seconds"], found["device"] == "cuda"
    reduced = on_gpu and found["processes"] > 1
    measured = {
        "compute_s": seconds["alone"] if on_gpu else None,
        "batch": found["batch"] if on_gpu else None,
        "gradient_bytes": found["gradient_bytes"],
        "node_bandwidth": found["gradient_bytes"] / seconds["all-reduce"] if reduced else None,
        "network_bandwidth": None,
        "latency_s": seconds["small all-reduce"] / 2 if reduced else None,
        "agreements_s": seconds.get("agreements"),
        "loader_images_per_s_core": found["loader_images_per_s"]["alone"],
        "node_cores": None,
    }
    given = {
        "compute_s": args.gpu_step,
        "batch": args.gpu_batch if args.gpu_step else None,
        "node_bandwidth": args.node_bandwidth and args.node_bandwidth * 1e9,
        "network_bandwidth": args.network_bandwidth and args.network_bandwidth * 1e9,
        "latency_s": args.latency and args.latency / 1e6,
        "node_cores": args.node_cores,
        "loader_images_per_s_core": args.loader_rate,
    }
    values = {name: value if given.get(name) is None else given[name] for name, value in measured.items()}
    source = {
        name: "not measured" if value is None else "given" if given.get(name) is not None else "measured"
        for name, value in values.items()
    }
    return values, source


def show(rows, found, inputs, source, model_rows, stops):
    print(f"measured on {found['device']}, batch {found['batch']} a process")
    for row in rows:
        print(f"  {row['processes']} processes: step {row['step_s']:.3f} s, {row['images_per_s']:.2f} images/s")
    if len(rows) > 1:
        two = rows[1]
        print(f"  speed-up {two['speed_up']:.2f} x; compute of both at once {two['compute_both_at_once_s']:.3f} s")
        print(f"  all-reduce of {two['reduced_bytes'] / 1e6:.1f} MB: {two['reduce_s']:.3f} s, "
              f"{two['bus_bytes_per_s'] / 1e9:.2f} GB/s; agreements {two['agreements_s'] * 1e3:.2f} ms a step")  # fmt: skip
        print(f"  the model without overlap says {two['model_step_s']:.3f} s, {two['model_error']:+.0%}")
    rates = found["loader_images_per_s"]
    print(f"  loader: {rates['alone']:.1f} images/s a core alone, {rates['at once']:.1f} with all at once")
    print("\ninputs of the model")
    for name, value in inputs.items():
        print(f"  {name:<26} {shown(value):>14}   {source[name]}")
    print("\nMODEL, not a measurement: GPUs, overlap, step, images/s, efficiency, limit, hours an epoch of OpenImages")
    for row in model_rows:
        place = f"  {row['gpus']:>3} GPUs ({row['nodes']} nodes), overlap {row['overlap']:<24}"
        if row["missing"]:
            print(f"{place} not measured: {', '.join(row['missing'])}")
        else:
            print(f"{place} {row['step_s']:.4f} s {row['images_per_s']:9.0f} {row['efficiency']:6.0%} "
                  f"{row['limit']:<14} {row['openimages_h_epoch']:.2f} h")  # fmt: skip
    print(f"  a node's loader feeds {shown(stops['gpus_fed_by_a_node'], '{:.1f}')} of its GPUs; latency is half of a step at "
          f"{shown(stops['gpus_at_which_latency_is_half'], '{:.0f}')} GPUs")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="steps of each kind (default 9)")
    parser.add_argument("--batch", type=int, default=8, help="images a process on a CPU (default 8)")
    parser.add_argument("--size", type=int, default=224, help="pixels (default 224)")
    parser.add_argument("--images", type=int, default=256, help="that the loader reads (default 256)")
    parser.add_argument("--model", default="tresnet_m", help="network (default tresnet_m)")
    parser.add_argument("--device", help="cpu, even where there are GPUs")
    parser.add_argument("--gpu_batch", type=int, default=128, help="images a GPU (default 128)")
    parser.add_argument("--gpu_step", type=float, help="model: seconds of a GPU's step, where it is not measured here")
    parser.add_argument("--node_bandwidth", type=float, help="model: GB/s of an all-reduce inside a node")
    parser.add_argument("--network_bandwidth", type=float, help="model: GB/s between nodes")
    parser.add_argument("--latency", type=float, help="model: microseconds of a message between GPUs")
    parser.add_argument("--node_cores", type=int, help="model: cores of a node that decode")
    parser.add_argument("--loader_rate", type=float, help="model: images/s of a core, instead of the one measured here")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    gpus = torch.cuda.device_count() if args.device != "cpu" else 0
    world_size = 1 if gpus == 1 else 2
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        make_garments(folder, num_train=args.images, num_val=1, size=256, progress=False)
        mp.spawn(in_process, (world_size, port, folder, args), nprocs=world_size)
        found = json.loads((Path(folder) / "measured.json").read_text())
    rows = measured_rows(found)
    inputs, source = inputs_of_model(found, args)
    model_rows = [model_row(inputs, nodes, 8, overlap) for nodes in (1, 8) for overlap in OVERLAPS]
    stops = where_it_stops(inputs)
    show(rows, found, inputs, source, model_rows, stops)
    if (args.repeats, args.batch, args.size) != tuple(parser.get_default(n) for n in ("repeats", "batch", "size")):
        return
    result = {
        "machine": describe_machine(load, "torch", threads_a_process=1, gpus=gpus),
        "measured": {"device": found["device"], "batch": found["batch"], "size": args.size, "rows": rows,
                     "loader_images_per_s_core": found["loader_images_per_s"]},
        "model": {"inputs": inputs, "source": source, "rows": model_rows, "where_it_stops": stops},
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
