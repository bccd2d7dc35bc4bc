"""What runs while a table is in force: consumers, publishing, retention, heartbeats."""
