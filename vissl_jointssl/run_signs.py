"""What a running engine shows whoever started it; `plugin` writes it, `training` reads it."""

PROGRESS_FILE = "progress.json"  # in the checkpoint folder: {"step", "steps", "loss", "phase"}
LAST_WORDS = "run_distributed_engines: "  # on stderr; what follows, to the end, is why a run failed
