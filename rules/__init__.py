"""Tasks, traces, mining, review, sign-off and publishing."""
