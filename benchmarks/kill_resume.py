"""Kills train.py at random moments, 100 times: the same command with --resume ends bit by bit where the undisturbed run does.

    OMP_NUM_THREADS=1 python benchmarks/kill_resume.py [--kills 100] [--seed 0]

Rounds of up to 6 kills each, of two stages with a mask, dropout and evaluations between epochs, a checkpoint a step: with 0
and 2 loader workers, and with two processes of one job, of which one is killed and the other has to leave, by itself or,
where it waits for its peer's first word, on the SIGTERM that torchrun would send it. What is compared after each round:
every tensor and value of last.ckpt and best.ckpt of both stages, the logs but for their clock, the tables of priors, the
results, and that no temporary file is left. The counts go to benchmarks/results/reliability.json, under "kills", with
what each killed process was at. Two cores: about 7 minutes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from machine import describe_machine

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"
sys.path.insert(0, str(ROOT / "tests"))

from killing import Server, clear, differing, outcome, survive  # noqa: E402

from csl.garments import make_garments  # noqa: E402

FLAGS = [
    "--model_name", "test_resnet", "--image_size", 32, "--device", "cpu", "--save_every", 1, "--epochs", 3,
    "--prior_path", "auto", "--prior_epochs", 2, "--partial_loss_mode", "selective", "--simulate_partial_type", "rps",
    "--dropout", 0.2, "--eval_every", 2,
]  # fmt: skip

VARIANTS = ((0, False, 1), (2, False, 1), (0, False, 2), (2, False, 2), (0, True, 1))
"""Loader workers; whether pictures are drawn, which takes four fifths of such a run and most of the kills; processes."""


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--kills", type=int, default=100, metavar="N", help="how often to kill (100)")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of the moments (0)")
    options = p.parse_args()
    rng = np.random.default_rng(options.seed)
    hits, of_several, rounds, lost = Counter(), 0, 0, 0
    machine, started = describe_machine(os.getloadavg()[0], "torch", "timm"), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        folder = Path(folder)
        data = make_garments(folder / "set", num_train=20, num_val=4, size=40, progress=False)

        def command(variant):
            workers, server.pictures, server.processes = variant
            return ["--data", data, *FLAGS, "-j", workers, "-b", 4 // server.processes]

        expected, seconds = {}, {}
        for variant in VARIANTS:
            undisturbed = server.run([*command(variant), "--path_dest", folder / "whole"], folder / "log")
            assert undisturbed["status"] == 0, (folder / "log").read_text()[-3000:]
            seconds[variant] = undisturbed["seconds"]
            whole = expected.setdefault(server.processes, outcome(folder / "whole"))
            assert differing(whole, outcome(folder / "whole")) == []
            clear(folder / "whole")
        while hits.total() < options.kills:
            variant = VARIANTS[rounds % len(VARIANTS)]
            most = min(6, options.kills - hits.total())
            argv = command(variant)
            found = survive(server, argv, folder / "run", folder / "log", rng, most, seconds[variant])
            hits.update(found)
            of_several += len(found) if server.processes > 1 else 0
            if not found:  # it was through before its moment came: the machine has become faster
                seconds[variant] *= 0.7
            wrong = differing(expected[server.processes], outcome(folder / "run"))
            lost += bool(wrong)
            rounds += 1
            print(
                f"round {rounds}, {variant[0]} workers, {variant[2]} processes: {len(found)} kills, "
                f"{len(wrong)} differences {wrong[:3]}",
                flush=True,
            )
            clear(folder / "run")
            seconds_so_far = round(time.monotonic() - started)
            write(
                "kills",
                {
                    "kills": hits.total(),
                    "of one of two processes": of_several,
                    "after which the other had to be told to leave": server.told,
                    "rounds": rounds,
                    "rounds that ended otherwise": lost,
                    "where": dict(hits.most_common()),
                    "seconds": seconds_so_far,
                    "machine": machine,
                },
            )
    for place, count in hits.most_common():
        print(f"{count:5}  {place}")
    print(f"{hits.total()} kills in {rounds} rounds, {lost} rounds that ended otherwise; {RESULTS.relative_to(ROOT)}")
    return 1 if lost else 0


def write(key, result):
    """Put a result beside the others of the file."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[key] = result
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
