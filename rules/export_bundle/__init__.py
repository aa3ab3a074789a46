"""The bundle that proves itself: built and verified from bytes alone, without database, settings or clock."""
