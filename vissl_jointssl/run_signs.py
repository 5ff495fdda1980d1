"""What a running engine shows whoever started it; `plugin` writes it, `training` and `report` read it."""

PROGRESS_FILE = "progress.json"  # in the checkpoint folder, as are the files below
# {"step", "steps", "loss", "phase", "beside_loss": {name: number}, "warnings": [sentence]}
LAST_WORDS = "run_distributed_engines: "  # on stderr; what follows, to the end, is why a run failed
MASKED_BASELINES_FILE = "masked_baselines.jsonl"  # a line is {"iteration", measure: number, ...}
COLLAPSE_FILE = "collapse.jsonl"  # the same, and {"limits": {measure: number}} and {"iteration", "warning": sentence}
STEP_MEASURES_FILE = "step_measures.json"  # what `hooks.step_measures` has measured, its keys are told there
STOPPED = 75  # exit code of a run that was asked to stop: the same command goes on, so a scheduler may queue it again
INTERRUPTED = 130  # the same after Ctrl-C: whoever pressed it decides
STOP_PIPE = "JOINT_SSL_STOP_PIPE"  # environment: a file descriptor; each byte in it is a signal sent to the starter
