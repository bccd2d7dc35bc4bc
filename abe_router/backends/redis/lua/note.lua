-- Notes keys, and tells those who wait for news when there are new ones among them.
-- KEYS: keys, news. ARGV: the keys.
local new = redis.call('SADD', KEYS[1], unpack(ARGV))
if new > 0 then redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100, '*', 'keys', new) end
return new
