"""Benchmarks: `./dev bench [NAME...]` prints one JSON object. `docs/benchmarks.md` says what each figure means."""
