"""The programs under measurement: each module is run in its own process, in its own environment.

`python -m bench.contenders.NAME ROLE`, with a Spec in the environment, does one of four things: `work`
consumes until it is ended, `publish` sends as fast as it can in each way it knows and prints the rates as
JSON, `fill` puts a number of messages in place, and `pace` sends at a steady rate.
"""
