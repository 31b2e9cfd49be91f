"""Trials on a cluster: the only room that knows Ray."""

import os

# Ray reads these when it is imported: no statistics sent home, no table, no log files, no
# snapshots (they grow with the trials; ours are the rows) and no signal handler of its own, no
# five seconds of waiting after a TorchTrainer has ended, and all trials for which there is room
# started at once, not one after another. A process without GPUs sees none: torch's optimizers
# would touch a visible one.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*worker processes have been started on node",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# A busy machine may need longer than the 30 seconds that Ray grants its processes to start. Where
# they die, `watchdog` does not wait for that.
for _limit in ("RAY_raylet_start_wait_time_s", "RAY_gcs_server_port_wait_time_s"):
    os.environ.setdefault(_limit, "120")
