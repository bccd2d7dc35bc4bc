-- Creates a lost group again, from the beginning of the stream. Returns 0 if it exists.
-- KEYS: stream, failures, delayed. ARGV: group.
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err then
  if string.sub(made.err, 1, 9) == 'BUSYGROUP' then return 0 end
  return made
end
redis.call('DEL', KEYS[2], KEYS[3])
return 1
