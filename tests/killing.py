"""Training processes that are killed at random moments and started again, until they are through; and what they must equal.

A process is train.py, forked from one that has imported everything, so that hardly any of its life is spent on imports:
`python tests/killing.py` reads requests, a line of JSON each, from its standard input.
"""

import ctypes
import json
import os
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Server:
    """Starts training processes. A context manager.

    `run(argv, log)` runs `train.py argv` in a process of its own, its output appended to a log, its number in `log.pid`. It
    gets a signal `kill_after` seconds after it began, or after the log has the text `when`; once a file `half_written`,
    which is there already, is partly written anew; or when it reads an image whose path ends in `at_image`. `limits`
    may hold "file_size" and "more_memory" in bytes, and "no_override": root may not write what its permissions forbid.
    Returns {"status": exit status, negative for a signal, "told": see below, "seconds": of life}.

    Args:
        pictures: whether runs draw theirs (see `without_pictures`).
        processes: of a run. Of several `victim` alone gets the signal, and the status is its own, or says which other ended
            badly before that. Those that are left when one has ended badly should find out and leave; after 5 seconds they are
            told to by a SIGTERM, as by torchrun, which `told` notes, and after a minute the status is "hung", as after ten
            of any run.
    """

    def __init__(self, pictures=True, processes=1):
        self.pictures, self.processes, self.victim = pictures, processes, 0
        self.told = 0  # runs of `survive` in which the others had to be told

    def __enter__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            [sys.executable, "-u", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert json.loads(self.process.stdout.readline()) == "ready"
        return self

    def __exit__(self, *_):
        self.process.kill()  # it has nothing to lose, and a process forked meanwhile may hold its standard input open
        self.process.wait(60)
        self.process.stdin.close()

    def run(
        self,
        argv,
        log,
        kill_after=None,
        signal_number=signal.SIGKILL,
        when=None,
        limits=None,
        half_written=None,
        at_image=None,
    ):
        request = {
            "argv": list(map(str, argv)), "log": str(log), "kill_after": kill_after, "signal": int(signal_number),
            "when": when, "limits": limits or {}, "pictures": self.pictures, "at_image": at_image,
            "half_written": half_written and str(half_written), "processes": self.processes, "victim": self.victim,
        }  # fmt: skip
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def serve():
    """Fork for each request and see to it that the process ends."""
    import matplotlib.pyplot  # noqa: F401
    import timm  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import csl.plots  # noqa: F401

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started = time.monotonic()
        port = free_port() if request["processes"] > 1 else None
        living = {}
        for rank in range(request["processes"]):
            pid = os.fork()
            if pid == 0:
                _train(request, rank, port)
            living[rank] = pid
        victim, when, log = request["victim"], request["when"], Path(request["log"])
        statuses, status, told, orders = {}, None, False, [(started + 600, signal.SIGKILL)]
        deadline, signalled = None, False
        if request["kill_after"] is not None and when is None:
            deadline = started + request["kill_after"]
        while living:
            if when is not None and log.exists() and when in log.read_text():
                deadline, when = time.monotonic() + request["kill_after"], None
            now = time.monotonic()
            half_written = request["half_written"] and _is_half_written(Path(request["half_written"]))
            if half_written or (deadline is not None and now >= deadline):
                if victim in living:
                    os.kill(living[victim], request["signal"])
                    signalled = True
                deadline, request["half_written"] = None, None
            for rank, pid in list(living.items()):
                ended, code = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del living[rank]
                    statuses[rank] = os.waitstatus_to_exitcode(code)
                    if statuses[rank] and len(orders) == 1:
                        orders = [(now + 5, signal.SIGTERM), (now + 60, signal.SIGKILL)]
                    if statuses[rank] and rank != victim and not signalled:
                        status = f"process {rank} ended with {statuses[rank]}"
            if living and now >= orders[0][0]:
                _, number = orders.pop(0)
                told = True
                status = status if orders else "hung"
                for pid in living.values():
                    os.kill(pid, number)
                orders = orders or [(now + 60, signal.SIGKILL)]
            time.sleep(0.0005)
        answer = {"status": status or statuses[victim], "told": told, "seconds": time.monotonic() - started}
        print(json.dumps(answer), flush=True)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _train(request, rank, port):
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not to outlive the server
    if port is not None:  # as torchrun would
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(request["processes"]), "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(request["processes"]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if rank == request["victim"]:
        Path(request["log"] + ".pid").write_text(str(os.getpid()))
    _limit(**request["limits"])
    if not request["pictures"]:
        for owner, name, nothing in without_pictures():
            setattr(owner, name, nothing)
    if request["at_image"] and rank == request["victim"]:
        _signal_at(request["at_image"], request["signal"])
    sys.argv = ["train.py", *request["argv"]]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    sys.exit(0)


def _is_half_written(path):
    try:
        return path.exists() and any(new.stat().st_size > 1 << 20 for new in path.parent.glob(f".{path.name}.*.tmp"))
    except FileNotFoundError:  # just renamed
        return False


def _signal_at(image, number):
    """Send this process a signal once it reads that image."""
    from csl.data.dataset import ImageDataset

    resized = ImageDataset.resized

    def read(self, index):
        if self.annotations.images[index].endswith(image):
            os.kill(os.getpid(), number)
        return resized(self, index)

    ImageDataset.resized = read


def without_pictures():
    """(owner, name, what to put there): pictures take four fifths of a run of six steps, and are tested elsewhere."""
    import csl.plots
    import csl.report
    import csl.training.board

    yield csl.plots, "plot_training", lambda *_: []
    yield csl.report, "write_report", lambda run, *_: run.report
    yield csl.plots, "plot_run_prior", lambda *_: None
    yield csl.training.board.Board, "write", lambda *_: None


def _limit(file_size=None, more_memory=None, no_override=False):
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if more_memory is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more_memory, used + more_memory))
    if no_override and os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # capabilities(7), version 3
        if libc.capget(head, sets):
            sys.exit("capget failed")
        for effective_or_permitted in (0, 1):
            sets[effective_or_permitted] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if libc.capset(head, sets):
            sys.exit("capset failed")


def survive(server, argv, folder, log, rng, kills, seconds):
    """Train into `folder`, killed at up to `kills` random moments; returns one entry for each kill: where it hit.

    Once it was hit after training it is left alone.

    Args:
        server: a Server.
        argv: flags of train.py without --path_dest and --resume.
        folder: of the run.
        log: file for the output.
        rng: a numpy Generator.
        kills: at most so many.
        seconds: what an undisturbed run takes; a process lives for up to half of that.
    """
    hits = []
    while True:
        again = ["--resume"] if hits else []
        through = hits[-1:] == ["after training"]  # what is left is pictures
        after = rng.uniform(0, 0.5 * seconds) if len(hits) < kills and not through else None
        server.victim = int(rng.integers(server.processes))
        ended = server.run([*argv, "--path_dest", folder, *again], log, after)
        if ended["status"] == 0:
            return hits
        assert ended["status"] == -signal.SIGKILL, f"{ended}\n{Path(log).read_text()[-3000:]}"
        server.told += ended["told"]
        hits.append(where(folder))


def where(folder):
    """What a killed process was at, by what it left."""
    folder = Path(folder)
    writing = [path.name for path in folder.rglob(".*.tmp")] if folder.exists() else []
    if any(".ckpt." in name for name in writing):
        return "writing a checkpoint"
    if writing:
        return "writing another file"
    if not (folder / "config.json").exists():
        return "before the folder of the run"
    if not (folder / "last.ckpt").exists():
        first = folder / "prior"
        if not first.exists():
            return "before the first checkpoint"
        return (
            "in the first stage" if (first / "last.ckpt").exists() else "before the first checkpoint of the first stage"
        )
    if (folder / "results.json").exists():
        return "after training"
    return "in training"


def outcome(folder):
    """All that has to be equal, bit by bit: tensors, numbers, tables, the log but for its clock."""
    import torch

    folder = Path(folder)
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".ckpt":
            state = torch.load(path, weights_only=True)
            state["config"] = {k: v for k, v in state["config"].items() if k not in ("path_dest", "resume", "workers")}
            found[name] = state
        elif path.suffix == ".csv":
            found[name] = path.read_bytes()
        elif path.name == "log.jsonl":
            entries = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{k: v for k, v in entry.items() if k != "images_per_second"} for entry in entries]
        elif path.name == "results.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}
        elif path.suffix == ".tmp":
            found[name] = "left over"
    return found


def differing(a, b, place=""):
    """Where two outcomes differ, as paths into them; tensors are compared bit by bit."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return [] if same else [place]
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{place}/{key}" for key in a.keys() ^ b.keys()]
        return missing + [found for key in a.keys() & b.keys() for found in differing(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [found for k, (x, y) in enumerate(zip(a, b, strict=True)) for found in differing(x, y, f"{place}/{k}")]
    return [] if type(a) is type(b) and a == b else [place]


def clear(folder):
    """Take a run away."""
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    serve()
