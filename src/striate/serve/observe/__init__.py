"""What is seen of a running server: numbers, logs, traces, drift. No request waits for that."""
