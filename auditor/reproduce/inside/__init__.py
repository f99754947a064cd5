"""What runs inside the sandbox during a re-run: the supervisor (standard library only) and the start of a rank."""
