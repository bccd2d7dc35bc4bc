-- Deletes what a subscription has of a stream. Returns how much there was.
-- KEYS: stream, failures, delayed, dead, owner, released. ARGV: group.
local group = redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[5], KEYS[6])
return (type(group) == 'number' and group or 0) + redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
