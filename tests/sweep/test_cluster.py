"""Studies on clusters of several nodes, emulated on this machine with GPUs that are declared."""

import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from subprocess import PIPE, STDOUT

import pytest
import ray
from ray.cluster_utils import Cluster

from nnclr_study.errors import ClusterError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import load_study
from nnclr_study.sweep import nodes
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.world import World
from tests.sweep.test_engine import STUDY, call, command, rows
from tests.sweep.test_engine import small as small

pytestmark = pytest.mark.ray

SEARCH = """
[study]
name = "hunt"
seeds = [1]
[budget]
trials = 4
[trial]
dataset = "digits"
epochs = 9
steps_per_epoch = 4
batch_size = 32
labelled_batch_size = 8
width = 16
[search]
sampler = "random"
[search.space]
temperature = { low = 0.05, high = 0.5, log = true }
"""


@contextmanager
def cluster(*wanted):
    """Start a cluster of nodes with these resources, the first of them the head."""
    head, *others = wanted
    made = Cluster(
        initialize_head=True,
        head_node_args=head | {"include_dashboard": True, "dashboard_port": 0},
    )
    try:
        for other in others:
            made.add_node(**other)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


@contextmanager
def joined(made):
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def free(made, within):
    """Return the free GPUs, after waiting a while for all of them."""
    with joined(made):
        for _ in range(within):
            if ray.available_resources().get("GPU") == ray.cluster_resources()["GPU"]:
                break
            time.sleep(1)
        return ray.available_resources().get("GPU", 0.0)


def test_small_trials_share_the_gpus_of_nodes_that_have_some(small, tmp_path):
    wanted = {"num_cpus": 1}, {"num_cpus": 2, "num_gpus": 1}, {"num_cpus": 2, "num_gpus": 1}
    with cluster(*wanted) as made:
        words = ("--address", made.address, "--gpus-per-trial", "0.5")
        done = call("run", small, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = RunFolder.open(tmp_path / "runs" / "small")
        (session,) = folder.sessions()
        assert (session.nodes, session.gpus, session.max_concurrent) == (3, 2, 4)
        assert session.runner == "in-process"
        rows = folder.trials().values()
        assert {row.status for row in rows} == {"finished"}
        assert all(row.gpu_seconds == pytest.approx(row.seconds / 2) for row in rows)


def test_two_worker_trials_cross_nodes_and_more_of_them_than_fit_do_not_lock_up(small, tmp_path):
    wanted = {"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1}, {"num_cpus": 1, "num_gpus": 1}
    with cluster(*wanted) as made:
        small.write_text(STUDY.replace("epochs = 4", "epochs = 2").replace("[1, 2]", "[1]"))
        words = ("--address", made.address, "--workers", "2", "--gpus-per-trial", "2")
        done = call("run", small, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = RunFolder.open(tmp_path / "runs" / "small")
        (session,) = folder.sessions()
        assert (session.workers, session.max_concurrent, session.runner) == (2, 1, "train")
        assert len(folder.trials()) == 2
        assert free(made, within=60) == 2


def test_a_search_gives_the_gpus_of_what_it_stops_back(tmp_path):
    (tmp_path / "hunt.toml").write_text(SEARCH)
    with cluster({"num_cpus": 3, "num_gpus": 2}) as made:
        done = call("run", "hunt.toml", "--address", made.address, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = RunFolder.open(tmp_path / "runs" / "hunt")
        assert folder.sessions()[0].runner == "train"
        statuses = {row.status for row in folder.trials().values()}
        assert len(folder.trials()) == 4
        assert statuses == {"finished", "stopped"}
        assert free(made, within=60) == 2


def test_a_node_that_joins_is_put_to_use(small, tmp_path):
    small.write_text(STUDY.replace("[1, 2]", "[1, 2, 3]").replace("epochs = 4", "epochs = 60"))
    with cluster({"num_cpus": 1}) as made:
        process = subprocess.Popen(
            command("run", small, "--address", made.address),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        epochs = tmp_path / "runs" / "small" / "epochs.jsonl"
        while process.poll() is None and not epochs.exists():
            time.sleep(0.1)
        made.add_node(num_cpus=1)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    folder = RunFolder.open(tmp_path / "runs" / "small")
    assert folder.sessions()[0].max_concurrent == 1
    ends = sorted((row.ended_at.timestamp(), row.seconds) for row in folder.trials().values())
    assert any(
        later - took < earlier - 0.5 for (earlier, _), (later, took) in itertools.pairwise(ends)
    ), "no two trials ran at once"


NO_RETRY = """
import sys
from nnclr_study import cli
from nnclr_study.sweep import engine
engine.RETRIES = 0
sys.exit(cli.main())
"""


@pytest.mark.parametrize("has_notice", [False, True])
def test_trials_of_a_node_that_leaves_go_on_and_one_that_joins_is_used(
    small, tmp_path, has_notice
):
    small.write_text(STUDY.replace("epochs = 4", "epochs = 12"))
    # The head has no GPU: all trials run on the other node, and then on the one after.
    with cluster({"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1}) as made:
        words = ("--address", made.address, "--gpus-per-trial", "1", "--runner", "in-process")
        # A node that is taken away with notice costs a trial none of its retries.
        python, *usual = command("run", small, *words)
        study = [python, "-c", NO_RETRY, *usual[2:]] if has_notice else [python, *usual]
        process = subprocess.Popen(study, cwd=tmp_path, stdout=PIPE, stderr=STDOUT)
        folder = RunFolder(tmp_path / "runs" / "small")
        when_recorded(process, folder, 5)
        (leaving,) = made.worker_nodes
        if has_notice:
            drain(made, leaving)
        made.remove_node(leaving, allow_graceful=False)
        made.add_node(num_cpus=1, num_gpus=1)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
    ended = folder.trials()
    assert [row.status for row in ended.values()] == ["finished"] * 4
    lines = (folder.path / "epochs.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 12, "no row is lost, or written twice"
    recorded = rows(folder.path)
    for trial in plan_trials(load_study(small)):
        *_, whole = train(trial.config, load_dataset(trial.config, tmp_path), World.alone())
        undisturbed = [row.model_dump(exclude={"seconds", "train_seconds"}) for row in whole.rows]
        assert recorded[trial.id] == undisturbed


def drain(made, node):
    """Tell a node that it will be taken away, as a spot node is told."""
    reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot")
    words = ["drain-node", "--address", made.address, "--node-id", node.node_id, *reason]
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *words, "--deadline-remaining-seconds", "1"],
        check=True,
        capture_output=True,
        timeout=100,
    )


def when_recorded(process, folder, epochs):
    """Wait until so many epochs are recorded."""
    file = folder.path / "epochs.jsonl"
    while process.poll() is None:
        if file.exists() and file.read_bytes().count(b"\n") >= epochs:
            return
        time.sleep(0.05)
    raise AssertionError(process.stdout.read().decode())


@contextmanager
def apart(made, *hidden):
    """Let a node join that sees empty folders in the place of these."""
    mounts = " && ".join(f"mount -t tmpfs none {path}" for path in hidden)
    ray_command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    script = f'{mounts} && exec "$@"'
    joining = [f"--address={made.address}", "--num-cpus=1", "--disable-usage-stats"]
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", *ray_command, *joining],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        with joined(made):
            before = 1
            for _ in range(60):
                if len(nodes.alive()) > before:
                    break
                time.sleep(0.5)
            else:
                raise AssertionError("the node did not join")
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait()


needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="this user may not make a mount namespace",
)


@needs_mounts
def test_storage_that_a_node_does_not_see_is_refused_before_the_first_trial(small, tmp_path):
    storage = tmp_path / "runs"
    storage.mkdir()
    with cluster({"num_cpus": 1}) as made, apart(made, storage):
        done = call("run", small, "--address", made.address, cwd=tmp_path)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "does not see" in done.stderr
        assert "--storage" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (storage / "small" / "sessions.jsonl").exists()


@needs_mounts
def test_images_reach_a_node_that_lacks_them_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "CHUNK_BYTES", 1_000)
    data = tmp_path / "data"
    images = data / "prepared" / "waves"
    images.mkdir(parents=True)
    content = {"train.npy": os.urandom(4_321), "empty.npy": b"", "about.json": b"{}" * 500}
    for name, text in content.items():
        (images / name).write_bytes(text)
    with cluster({"num_cpus": 1}) as made, apart(made, data), joined(made):
        everywhere = nodes.alive()
        assert nodes.bring(everywhere, images) == 1
        assert nodes.bring(everywhere, images) == 0, "it is there now"
        for read in nodes._on_each(everywhere, _read, images):
            assert read == content
        (images / "train.npy").write_bytes(b"another")
        assert nodes.bring(everywhere, images) == 1, "of another size"


def test_a_node_that_cannot_be_prepared_is_named(tmp_path):
    with cluster({"num_cpus": 1}) as made, joined(made):
        with pytest.raises(ClusterError, match=r"cannot be prepared: .*no such thing"):
            nodes._on_each(nodes.alive(), _fail)
        nodes.check(nodes.alive(), tmp_path)
        assert list(tmp_path.iterdir()) == []


def _read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _fail():
    raise OSError("no such thing")


@contextmanager
def started(tmp_path, auth=None, **ports):
    """Start a cluster as an administrator would; wait until it listens at these ports."""
    env = os.environ | (auth or {"RAY_AUTH_MODE": "disabled"})
    ports = {"port": free_port(), "dashboard_agent_listen_port": free_port()} | ports
    flags = [f"--{name.replace('_', '-')}={port}" for name, port in ports.items()]
    ray_command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    process = subprocess.Popen(
        [*ray_command, *flags, "--num-cpus=2", "--disable-usage-stats"],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for port in ports.values():
            wait_for_port(port, process)
        yield env
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def wait_for_port(port, process):
    for _ in range(120):
        assert process.poll() is None, "the cluster did not start"
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"nobody listens at {port}")


FIRST_CLIENT_IS_LOST = """
import sys
if "--mode=proxy" in sys.orig_argv:
    from ray.util.client.server.proxier import ProxyManager
    start, lost = ProxyManager.start_specific_server, []
    def lose_one(*given):
        if lost:
            return start(*given)
        lost.append(given)
        return False
    ProxyManager.start_specific_server = lose_one
"""
"""What a crash of gRPC in the process that Ray forks for a client looks like to that client."""


def test_through_a_client_a_study_runs_on_the_cluster(small, tmp_path):
    port = free_port()
    (tmp_path / "sitecustomize.py").write_text(FIRST_CLIENT_IS_LOST)
    there = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(tmp_path)}
    with started(tmp_path, there, ray_client_server_port=port) as env:
        words = ("--address", f"ray://127.0.0.1:{port}", "--storage", tmp_path / "there")
        done = call("run", small, *words, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "finished  queue_size 0, seed 1" in done.stdout + done.stderr
        small.write_text(STUDY.replace("queue_size = [0, 100]", "temperature = [1e-40]"))
        failing = call("run", small, *words, cwd=tmp_path, env=env)
        assert failing.returncode == 2, "it is another study under the same name"
    folder = RunFolder.open(tmp_path / "there" / "small")
    assert {row.status for row in folder.trials().values()} == {"finished"}


def test_a_cluster_that_asks_for_a_token_is_joined_with_it_alone(small, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    port = free_port()
    small.write_text(STUDY.replace("[1, 2]", "[1]").replace("[0, 100]", "[0]"))
    with started(tmp_path, auth, port=port, dashboard_port=free_port()) as env:
        words = ("run", small, "--address", f"127.0.0.1:{port}")
        without = call(*words, cwd=tmp_path, env=env | {"RAY_AUTH_MODE": "disabled"})
        assert without.returncode == 3, without.stderr
        assert "RAY_AUTH_TOKEN_PATH" in without.stderr
        done = call(*words, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs_as_a_ray_job(small, tmp_path):
    port = free_port()
    with started(tmp_path, dashboard_port=port) as env:
        submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
        study = ["--", *command("run", small, "--address", "auto", "--storage", tmp_path / "job")]
        for _ in range(30):  # the agent comes up after its port
            done = subprocess.run(
                [*submit, "--address", f"http://127.0.0.1:{port}", *study],
                env=env,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=300,
            )
            if "No available agent" not in done.stderr + done.stdout:
                break
            time.sleep(1)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "finished  queue_size 0, seed 1" in done.stdout
    folder = RunFolder.open(tmp_path / "job" / "small")
    assert len(folder.trials()) == 4
