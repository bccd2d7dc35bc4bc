"""Files: read once, and watched for changes."""
