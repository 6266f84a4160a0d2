"""The examples call torchrun and `electra-fast pretrain` as both accept, given the variables that their systems set."""

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest
import tyro
from torch.distributed.run import get_args_parser

from electra_fast.cli.pretrain import PretrainCommand
from electra_fast.pretraining import preset

PRETRAINING = Path(__file__).resolve().parents[1] / "examples" / "pretraining"
# What stands for the systems' programs: each command of torchrun is printed and not run.
PROGRAMS = {
    "torchrun": "printf '%s\\n' \"$@\"",
    "srun": 'exec "$@"',
    "scontrol": '[ "$*" = "show hostnames node[1-2]" ] && printf "node1\\nnode2\\n"',
}


@pytest.fixture
def torchrun_words(tmp_path):
    """What torchrun is called with by a script of bash, under these variables."""
    for name, script in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def words(script: str, **variables: str) -> list[str]:
        environment = variables | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return words


def check(words: list[str], n_nodes: Collection[int] = (2,)):
    """Parses a call of torchrun, on 8 GPUs of so many machines; returns its options."""
    torchrun = get_args_parser().parse_args(words)
    assert torchrun.module and torchrun.training_script == "electra_fast" and torchrun.nproc_per_node == "8"
    name, *arguments = torchrun.training_script_args
    assert name == "pretrain"
    command = tyro.cli(PretrainCommand, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    batch_size = preset(command.preset).batch_size
    assert [n for n in n_nodes if batch_size % (8 * n * command.options.accumulate)] == []
    assert (command.data, command.out, command.options.parallel) == (("/shared/corpus",), Path("/shared/large"), "fsdp")
    return torchrun


def test_slurm(torchrun_words):
    script = (PRETRAINING / "slurm.sh").read_text(encoding="utf-8")
    variables = {"NNODES": "2", "GPUS_PER_NODE": "8", "JOB_ID": "17", "JOB_NODELIST": "node[1-2]"}
    words = torchrun_words(script, **{f"SLURM_{name}": value for name, value in variables.items()})
    torchrun = check(words)
    assert (torchrun.nnodes, torchrun.rdzv_backend, torchrun.rdzv_id) == ("2", "c10d", "17")
    assert torchrun.rdzv_endpoint == "node1:29500"


def test_skypilot(torchrun_words):
    yaml = pytest.importorskip("yaml")
    task, volume = (
        yaml.safe_load((PRETRAINING / name).read_text(encoding="utf-8")) for name in ("sky.yaml", "sky-volume.yaml")
    )
    assert task["volumes"] == {"/shared": volume["name"]} and task["num_nodes"] == 2
    assert task["resources"]["accelerators"].endswith(":8") and "electra_fast" in task["run"]
    variables = {"NUM_NODES": "2", "NUM_GPUS_PER_NODE": "8", "NODE_RANK": "1", "NODE_IPS": "10.0.0.1\n10.0.0.2"}
    words = torchrun_words(task["run"], **{f"SKYPILOT_{name}": value for name, value in variables.items()})
    torchrun = check(words)
    assert (torchrun.nnodes, torchrun.node_rank) == ("2", 1)
    assert (torchrun.master_addr, torchrun.master_port) == ("10.0.0.1", 29500)


def test_kubernetes(monkeypatch):
    yaml = pytest.importorskip("yaml")
    with open(PRETRAINING / "pytorchjob.yaml", encoding="utf-8") as file:
        claim, job = yaml.safe_load_all(file)
    worker, elastic = job["spec"]["pytorchReplicaSpecs"]["Worker"], job["spec"]["elasticPolicy"]
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["name"], container["command"]) == ("pytorch", ["torchrun"])
    for name, value in (
        ("NNODES", f"{elastic['minReplicas']}:{elastic['maxReplicas']}"),
        ("RDZV_BACKEND", elastic["rdzvBackend"]),
        ("RDZV_ENDPOINT", f"{job['metadata']['name']}-worker-0:23456"),
        ("MAX_RESTARTS", str(elastic["maxRestarts"])),
    ):
        monkeypatch.setenv(f"PET_{name}", value)
    torchrun = check(container["args"], range(elastic["minReplicas"], elastic["maxReplicas"] + 1))
    assert (torchrun.nnodes, torchrun.rdzv_endpoint) == ("1:2", "pretrain-large-worker-0:23456")
    assert worker["replicas"] == elastic["maxReplicas"] and worker["restartPolicy"] == "OnFailure"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    # Torch's own fault: else a machine that comes later waits for an address that is not told anew.
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
