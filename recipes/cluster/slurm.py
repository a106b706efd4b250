"""A Slurm site with nodes of 4 GPUs: `tinymem sweep RECIPE --engine parsl --config recipes/cluster/slurm.py --device cuda`.

Start it on a login node, in tmux or as a job of one core; it submits the blocks below and waits. Copy the file, and change what is marked.
The sweep's folder, the runs and any plugin must lie on a file system that all nodes see, with POSIX locks (Lustre: mounted with `flock`).
"""

from parsl import Config, HighThroughputExecutor
from parsl.addresses import address_by_hostname
from parsl.launchers import SrunLauncher
from parsl.providers import SlurmProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="gpus",
            address=address_by_hostname(),  # CHANGE where nodes reach this host by another: address_by_interface("hsn0")
            available_accelerators=4,  # GPUs of a node: each worker sees one of them, through CUDA_VISIBLE_DEVICES
            max_workers_per_node=4,  # one a GPU. Several a GPU: 8 here, and available_accelerators=["0", "0", "1", "1", ...]
            cpu_affinity="block",
            heartbeat_period=10,  # seconds; a node that is silent for the threshold is lost, and its tasks go to others
            heartbeat_threshold=60,
            provider=SlurmProvider(
                partition="gpu",  # CHANGE
                account="my_account",  # CHANGE
                constraint="gpu",
                scheduler_options="#SBATCH --gpus-per-node=4",
                worker_init="source ~/tinymem/.venv/bin/activate",  # CHANGE: what makes `python` the one with tinymem
                nodes_per_block=4,
                init_blocks=1,
                min_blocks=0,
                max_blocks=8,  # jobs at a time; blocks come and go with the work that is left
                walltime="06:00:00",  # a job that ends before its tasks do costs the runs under way, which are done again
                cmd_timeout=120,
                launcher=SrunLauncher(overrides="--gpus-per-node=4 --ntasks-per-node=1"),
            ),
        )
    ],
    retries=5,  # of a task whose worker or node was lost; a run that fails by itself is a row, not a lost task
    strategy="simple",
    run_dir="sweeps/parsl",
)
