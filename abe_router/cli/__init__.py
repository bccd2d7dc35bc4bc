"""The commands: one noun or verb a file, and nothing but talk."""
