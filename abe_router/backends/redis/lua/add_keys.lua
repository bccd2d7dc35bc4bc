-- Adds keys to the known ones, and appends to `new_keys` if one of them is new. Returns how many are new.
-- KEYS: keys, new_keys. ARGV: the keys.
local new = redis.call('SADD', KEYS[1], unpack(ARGV))
if new > 0 then redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100, '*', 'keys', new) end
return new
