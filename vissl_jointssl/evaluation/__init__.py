"""Does pre-training help on a task: trained and tested from several starts, side by side, on the same cases."""
