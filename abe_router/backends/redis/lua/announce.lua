-- Keeps the word of a worker.
-- KEYS: workers. ARGV: worker, for how many milliseconds, the word.
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now() + ARGV[2]) .. ':' .. ARGV[3])
