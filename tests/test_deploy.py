"""The cluster recipes are what they say they are: what can be known without a cluster."""

import copy
import importlib.util
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest
import ray
import ray.autoscaler.sdk
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.main import get_command

from nnclr_study.cli import app

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
RECIPES = ("rayjob.yaml", "cluster.yaml", "slurm.sh")
SCHEMA = json.loads((ROOT / "tests" / "deploy_data" / "rayjob_schema.json").read_text())
CLAIM, RAYJOB = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
CLUSTER = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())


def load_when_ready():
    spec = importlib.util.spec_from_file_location("when_ready", DEPLOY / "when_ready.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


when_ready = load_when_ready()


def changed(document, path, value):
    """Return a copy with the value at a path replaced; a key that ends in ! is new."""
    document = copy.deepcopy(document)
    *parents, last = path
    at = document
    for key in parents:
        at = at[key]
    if isinstance(last, str) and last.endswith("!"):
        last = last.removesuffix("!")
        assert last not in at
    else:
        at[last]
    at[last] = value
    return document


# The commands


def text_commands(text):
    """Return the words of every `nnclr-study` command, in code and in comments."""
    text = re.sub(r"^ *# ?", "", text, flags=re.M).replace("\\\n", " ")
    found = re.findall(r"nnclr-study (?:run|plan|status|report|data|evaluate) +[^&\n]*", text)
    return [shlex.split(command)[1:] for command in found]


def commands(recipe):
    if recipe == "rayjob.yaml":
        words = shlex.split(RAYJOB["spec"]["entrypoint"])
        return [words[words.index("nnclr-study") + 1 :]]
    return text_commands((DEPLOY / recipe).read_text())


def parse(words):
    """Return the parameters of a command as our own command line understands them."""
    name, *rest = words
    return get_command(app).commands[name].make_context(name, rest).params


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_command_is_one_of_ours(recipe):
    (words,) = commands(recipe)
    params = parse(words)
    assert words[0] == "run"
    assert str(params["storage"]).endswith("shared/runs")
    assert str(params["data"]).endswith("shared/data")
    assert params["address"]
    assert params["gpus_per_trial"] == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_study_it_names_is_there(recipe):
    named = re.findall(r"search_spaces/[\w.]+\.toml", (DEPLOY / recipe).read_text())
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_a_misspelt_option_is_found():
    (words,) = text_commands("# nnclr-study run a.toml --adress auto \\\n#   --data d &\n")
    assert words == ["run", "a.toml", "--adress", "auto", "--data", "d"]
    with pytest.raises(Exception, match="No such option: --adress"):
        parse(words)


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_head_says_how_to_use_it_and_what_was_not_tried(recipe):
    head = (DEPLOY / recipe).read_text().split("\n\n" if recipe == "slurm.sh" else "\nname:")[0]
    use = {"rayjob.yaml": "kubectl apply", "cluster.yaml": "ray up", "slurm.sh": "sbatch"}
    assert f"{use[recipe]} " in head
    assert f"deploy/{recipe}" in head
    assert "Not run on a real cluster by us. tests/test_deploy.py" in head
    assert (DEPLOY / recipe).read_text().count("CHANGE") > 3


def test_all_take_the_ray_that_we_test_with():
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)
    assert f"FROM rayproject/ray:{pinned}-py311-gpu\n" in (DEPLOY / "Dockerfile").read_text()
    assert RAYJOB["spec"]["rayClusterSpec"]["rayVersion"] == pinned


# rayjob.yaml


@pytest.mark.parametrize("document", [CLAIM, RAYJOB], ids=["claim", "job"])
def test_rayjob_fits_the_schema(document):
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)


HEAD = ("spec", "rayClusterSpec", "headGroupSpec")
WORKER = ("spec", "rayClusterSpec", "workerGroupSpecs", 0)
HEAD_POD = (*HEAD, "template", "spec")


@pytest.mark.parametrize(
    "path, value",
    [
        (("apiVersion",), "ray.io/v1alpha2"),
        (("spec", "entryPoint!"), "true"),
        (("spec", "backoffLimit"), "2"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("spec", "rayClusterSpec", "enableInTreeAutoscaler!"), True),
        ((*HEAD, "rayStartParams", "dashboard-host"), 0),
        ((*WORKER, "maxReplica!"), 4),
        ((*WORKER, "maxReplicas"), -1),
        ((*HEAD_POD, "container!"), []),
        ((*HEAD_POD, "containers"), []),
        ((*HEAD_POD, "containers", 0, "volumeMount!"), []),
        ((*HEAD_POD, "containers", 0, "resources", "limit!"), {}),
        ((*HEAD_POD, "containers", 0, "resources", "limits", "memory"), "16 GB"),
        ((*HEAD_POD, "volumes", 0, "emptyDir!"), {}),
        ((*HEAD_POD, "volumes", 1, "emptyDir", "medium"), "memory"),
    ],
)
def test_a_mistake_in_the_rayjob_is_refused(path, value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(RAYJOB, path, value), SCHEMA)


def test_a_mistake_in_the_claim_is_refused():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(CLAIM, ("spec", "accessModes"), ["ReadWriteAll"]), SCHEMA)


def pods():
    cluster = RAYJOB["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("pod", pods(), ids=["head", "worker"])
def test_every_pod_has_the_claim_and_shared_memory(pod):
    (container,) = pod["containers"]
    volumes = {volume.pop("name"): volume for volume in copy.deepcopy(pod["volumes"])}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    claim = {"persistentVolumeClaim": {"claimName": CLAIM["metadata"]["name"]}}
    assert mounts["/shared"] == claim
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["image"] == pods()[0]["containers"][0]["image"]


def test_the_rayjob_asks_for_the_gpus_that_may_come():
    spec = RAYJOB["spec"]
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    words = shlex.split(spec["entrypoint"])
    args = when_ready._arguments(words[2:])
    assert words[:2] == ["python", "/home/ray/nnclr-study/deploy/when_ready.py"]
    assert args.command[:2] == ["nnclr-study", "run"]
    assert args.ask_gpus == gpus * workers["maxReplicas"]
    assert 0 < args.gpus <= gpus * workers["minReplicas"]
    assert int(container["resources"]["limits"]["cpu"]) >= gpus
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


def test_no_shell_can_misread_the_rayjob_s_command():
    # KubeRay puts it unquoted into a script of its own.
    assert re.fullmatch(r"[\w ./-]+", RAYJOB["spec"]["entrypoint"])


# cluster.yaml


def validated(config):
    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


def test_cluster_passes_ray_s_own_validation():
    config = validated(CLUSTER)
    assert config["worker_setup_commands"] == []
    assert not [command for command in config["head_setup_commands"] if "install -U" in command]


@pytest.mark.parametrize(
    "path, value",
    [
        (("idle_timeout_minute!",), 10),
        (("max_workers",), -1),
        (("head_node_type",), "heads"),
        (("docker", "images!"), "nnclr-study"),
        (("auth", "ssh_users!"), "ubuntu"),
        (("provider", "security_group", "Group!"), "nnclr-study"),
        (("available_node_types", "gpu", "max_worker!"), 4),
        (("available_node_types", "gpu", "resources"), {"GPU": "1"}),
        (("available_node_types", "gpu", "min_workers"), 5),
        (("initialization_commands",), "mount -a"),
    ],
)
def test_a_mistake_in_the_cluster_is_refused(path, value):
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validated(changed(CLUSTER, path, value))


def test_cluster_workers_are_spot_and_its_head_is_not():
    head, gpu = (CLUSTER["available_node_types"][name]["node_config"] for name in ("head", "gpu"))
    assert gpu["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head


def test_cluster_asks_for_the_gpus_that_may_come():
    text = re.sub(r"^# ?", "", (DEPLOY / "cluster.yaml").read_text(), flags=re.M)
    (command,) = re.findall(r"when_ready\.py (.*)", text.replace("\\\n", " "))
    args = when_ready._arguments(shlex.split(command))
    assert args.command[:2] == ["nnclr-study", "run"]
    assert args.ask_gpus == CLUSTER["max_workers"]
    assert args.ask_gpus == CLUSTER["available_node_types"]["gpu"]["max_workers"]


def test_cluster_mounts_the_file_system_before_the_container_takes_it():
    (mount,) = [c for c in CLUSTER["initialization_commands"] if "mount -t nfs4" in c]
    assert mount.endswith(f"efs.{CLUSTER['provider']['region']}.amazonaws.com:/ /shared")
    assert "--volume /shared:/shared" in CLUSTER["docker"]["run_options"]
    assert CLUSTER["provider"]["availability_zone"].startswith(CLUSTER["provider"]["region"])


def test_cluster_nodes_have_the_token():
    assert CLUSTER["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "--env RAY_AUTH_MODE=token" in CLUSTER["docker"]["run_options"]


# slurm.sh

STAND_IN = """#!/usr/bin/env bash
echo "${0##*/} $*" >>"$LOG"
case "${0##*/} $*" in
    hostname*) echo 10.0.0.1 10.1.0.1 ;;
    "scontrol show"*) printf '%s\\n' node1 node2 node3 ;;
    srun*) exec sleep 60 ;;
    python*"--nodes 3"*) [ -z "${JOINED-}" ] || exit "$JOINED" ;;
    nnclr-study*)
        cp "$RAY_AUTH_TOKEN_PATH" "$LOG.token"
        stat -c %a "$RAY_AUTH_TOKEN_PATH" >"$LOG.mode"
        [ -n "${RUNS-}" ] || exit "${CODE-0}"
        trap 'sleep 0.3; exit 130' TERM
        touch "$LOG.running"
        while :; do sleep 0.05; done ;;
esac
"""


@pytest.fixture
def slurm(tmp_path):
    """Return a function that starts slurm.sh on three nodes that are not there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("srun", "scontrol", "hostname", "python", "nnclr-study"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    log = tmp_path / "log"
    jobs = []

    def start(*args, **env):
        job = subprocess.Popen(
            ["bash", DEPLOY / "slurm.sh", *args],
            cwd=ROOT,
            env={
                "PATH": f"{folder}:{os.environ['PATH']}",
                "LOG": str(log),
                "SHARED": str(tmp_path / "shared"),
                "SLURM_JOB_ID": "7",
                "SLURM_JOB_NODELIST": "node[1-3]",
                "SLURM_JOB_NUM_NODES": "3",
                "SLURM_CPUS_PER_TASK": "8",
                **env,
            },
            start_new_session=True,
        )
        jobs.append(job)
        return job

    start.log = log
    yield start
    for job in jobs:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def lines(log, name):
    return [line for line in log.read_text().splitlines() if line.startswith(name)]


def eventually(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_slurm_is_bash():
    subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], check=True)
    broken = (DEPLOY / "slurm.sh").read_text().replace("\nfi\n", "\n")
    assert subprocess.run(["bash", "-n"], input=broken, text=True, capture_output=True).returncode
    assert os.access(DEPLOY / "slurm.sh", os.X_OK)


def test_slurm_starts_ray_on_every_node_and_waits_for_all(slurm, tmp_path):
    assert slurm().wait(20) == 0
    head, *workers = sorted(lines(slurm.log, "srun"))
    assert "--nodelist=node1 " in head
    assert head.endswith("--block --head --node-ip-address=10.0.0.1 --port=6379")
    assert ["--nodelist=node2 " in workers[0], "--nodelist=node3 " in workers[1]] == [True, True]
    for line in (head, *workers):
        srun, ray = line.split(" ray ")
        known = set(re.findall(r"--[a-z-]+", ray_start_help()))
        assert set(re.findall(r"--[a-z-]+", ray)) <= known
        assert "--cpus-per-task=8" in srun
    for line in workers:
        assert line.endswith("--block --address=10.0.0.1:6379")
    first, second = lines(slurm.log, "python")
    for line in (first, second):
        script, *rest = shlex.split(line)[1:]
        assert (ROOT / script).samefile(DEPLOY / "when_ready.py")
        assert when_ready._arguments(rest).address == "10.0.0.1:6379"
    assert "--nodes 1 " in first
    assert "--nodes 3 " in second
    (run,) = lines(slurm.log, "nnclr-study")
    assert slurm.log.read_text().index(second) < slurm.log.read_text().index(run)
    params = parse(shlex.split(run)[1:])
    assert str(params["file"]) == "search_spaces/queue_size.toml"
    assert params["address"] == "10.0.0.1:6379"
    assert Path(params["storage"]) == tmp_path / "shared" / "runs"
    assert not lines(slurm.log, "scontrol requeue")


def ray_start_help():
    from ray.scripts.scripts import start

    return start.get_help(start.make_context("start", [], resilient_parsing=True))


def test_slurm_keeps_a_token_that_only_its_owner_reads(slurm, tmp_path):
    assert slurm().wait(20) == 0
    assert re.fullmatch("[0-9a-f]{64}", Path(f"{slurm.log}.token").read_text())
    assert Path(f"{slurm.log}.mode").read_text() == "600\n"
    assert not list((tmp_path / "shared").iterdir())


def test_slurm_takes_another_study_and_passes_its_exit_code_on(slurm):
    assert slurm("/shared/my_study.toml", CODE="1").wait(20) == 1
    (run,) = lines(slurm.log, "nnclr-study")
    assert "run /shared/my_study.toml " in run
    assert not lines(slurm.log, "scontrol requeue")


@pytest.mark.parametrize("sent, requeued", [("SIGUSR1", ["scontrol requeue 7"]), ("SIGTERM", [])])
def test_slurm_stops_cleanly_and_requeues_where_it_was_told_to(slurm, sent, requeued):
    job = slurm(RUNS="1")
    eventually(Path(f"{slurm.log}.running"))
    job.send_signal(getattr(signal, sent))
    assert job.wait(20) == 130
    assert lines(slurm.log, "scontrol requeue") == requeued


def test_slurm_runs_no_study_where_not_all_nodes_joined(slurm):
    assert slurm(JOINED="3").wait(20) == 3
    assert not lines(slurm.log, "nnclr-study")


def test_slurm_asks_for_what_it_relies_on():
    asked = re.findall(r"^#SBATCH (\S+)$", (DEPLOY / "slurm.sh").read_text(), flags=re.M)
    assert {"--signal=B:USR1@180", "--requeue", "--no-kill", "--exclusive"} <= set(asked)
    assert not re.search("symmetric-run|ray stop", (DEPLOY / "slurm.sh").read_text())


# when_ready.py


@pytest.mark.parametrize(
    "nodes, gpus, lacking",
    [
        (2, 4, None),
        (3, 4, "2 of 3 nodes and 4 of 4 GPUs are there"),
        (2, 5, "2 of 2 nodes and 4 of 5 GPUs are there"),
    ],
)
def test_missing_counts_what_is_alive(nodes, gpus, lacking):
    there = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}},
        {"Alive": False, "Resources": {"GPU": 4.0}},
    ]
    assert when_ready.missing(there, nodes, gpus) == lacking


@pytest.fixture
def fake_ray(monkeypatch):
    """Return a Ray that grows by a GPU node at each look, and the list of what it was asked."""

    class Ray:
        def __init__(self):
            self.asked, self.there, self.refusals = [], [{"Alive": True, "Resources": {}}], 1

        def init(self, **_):
            if self.refusals:
                self.refusals -= 1
                raise ConnectionError("not yet")

        def nodes(self):
            self.there.append({"Alive": True, "Resources": {"GPU": 1.0}})
            return self.there

        def request_resources(self, bundles):
            self.asked.append(bundles)

    fake = Ray()
    monkeypatch.setattr(when_ready, "SECONDS_BETWEEN_LOOKS", 0.001)
    monkeypatch.setattr(ray, "init", fake.init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: fake.nodes())
    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", fake.request_resources)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield fake
    for number, handler in before.items():
        signal.signal(number, handler)


def test_it_asks_waits_runs_and_gives_back(fake_ray):
    code = [sys.executable, "-c", "raise SystemExit(5)"]
    assert when_ready.main(["--ask-gpus", "3", "--gpus", "2", *code]) == 5
    assert len(fake_ray.there) == 3
    assert fake_ray.asked == [[{"GPU": 1, "CPU": 1}] * 3, []]


def test_it_says_in_vain_what_is_missing_and_runs_nothing(fake_ray, capsys, tmp_path):
    fake_ray.nodes = lambda: fake_ray.there
    argv = ["--gpus", "1", "--timeout", "0.05", "touch", str(tmp_path / "ran")]
    assert when_ready.main(argv) == 3
    assert "1 of 1 nodes and 0 of 1 GPUs are there" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_it_does_not_leave_the_waiting_to_ray_where_nobody_listens(fake_ray, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert when_ready.main(["--address", address, "--timeout", "0.05"]) == 3
    assert fake_ray.refusals == 1
    assert f"no Ray cluster at {address}: " in capsys.readouterr().err


def test_it_outlives_a_signal_that_its_command_handles(fake_ray):
    # As `ray job stop` does it: to both of them, once.
    child = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(130))\n"
        "os.kill(os.getppid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(9)\n"
    )
    assert when_ready.main(["--ask-gpus", "1", sys.executable, "-c", child]) == 130
    assert fake_ray.asked[-1] == []
