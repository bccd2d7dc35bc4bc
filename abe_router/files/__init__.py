"""Files that are read once, and watched for changes."""
