"""What can be seen from outside: metrics, readiness, logs. Nothing here decides anything."""
