-- Forgets a subscription to a stream.
-- KEYS: stream, failures, delayed, dead. ARGV: group.
redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
