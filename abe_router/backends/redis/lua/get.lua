-- Returns revision and value of an entry of a bucket, nothing if there is none.
-- KEYS: entries. ARGV: name.
local revision, value = read(redis.call('HGET', KEYS[1], ARGV[1]), now())
if revision == 0 then return {} end
return {revision, value}
