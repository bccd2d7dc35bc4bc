-- Counts a piece of a stream. Returns how many entries, and where to go on.
-- KEYS: stream. ARGV: where it begins.
local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', 1000)
return {#entries, #entries > 0 and '(' .. entries[#entries][1] or ''}
