"""The measured programs; each module runs in a process and an environment of its own.

`python -m bench.contenders.NAME ROLE`, with a Spec in the environment, does one of four things: `work`
consumes until it is stopped, `publish` publishes as fast as possible in each way that it has and prints the
rates as JSON, `fill` publishes a number of messages, and `pace` publishes at a steady rate.
"""
