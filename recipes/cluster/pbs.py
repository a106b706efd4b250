"""A PBS site with nodes of 4 GPUs: `tinymem sweep RECIPE --engine parsl --config recipes/cluster/pbs.py --device cuda`.

Start it on a login node, in tmux; it submits the blocks below and waits. Copy the file, and change what is marked. The sweep's folder, the
runs and any plugin must lie on a file system that all nodes see, with POSIX locks (Lustre: mounted with `flock`).
"""

from parsl import Config, HighThroughputExecutor
from parsl.addresses import address_by_hostname
from parsl.launchers import MpiExecLauncher
from parsl.providers import PBSProProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="gpus",
            address=address_by_hostname(),  # CHANGE where nodes reach this host by another: address_by_interface("bond0")
            available_accelerators=4,  # GPUs of a node: each worker sees one of them, through CUDA_VISIBLE_DEVICES
            max_workers_per_node=4,
            cpu_affinity="list:24-31:16-23:8-15:0-7",  # CHANGE: the cores that are near each GPU, in the order of the GPUs
            heartbeat_period=10,  # seconds; a node that is silent for the threshold is lost, and its tasks go to others
            heartbeat_threshold=60,
            provider=PBSProProvider(
                account="my_project",  # CHANGE
                queue="prod",  # CHANGE
                select_options="ngpus=4",
                scheduler_options="#PBS -l filesystems=home:scratch",  # CHANGE
                worker_init="source ~/tinymem/.venv/bin/activate",  # CHANGE: what makes `python` the one with tinymem
                cpus_per_node=32,
                nodes_per_block=10,
                init_blocks=1,
                min_blocks=0,
                max_blocks=2,  # jobs at a time
                walltime="06:00:00",  # a job that ends before its tasks do costs the runs under way, which are done again
                cmd_timeout=120,
                launcher=MpiExecLauncher(bind_cmd="--cpu-bind", overrides="--depth=32 --ppn 1"),
            ),
        )
    ],
    retries=5,  # of a task whose worker or node was lost; a run that fails by itself is a row, not a lost task
    strategy="simple",
    run_dir="sweeps/parsl",
)
