-- Returns how many of the entries are not pending at all: not with their consumer, and with no other one.
-- KEYS: stream. ARGV: group, ids.
local gone = 0
for i = 2, #ARGV do
  local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)
  if not pending.err and #pending == 0 then gone = gone + 1 end
end
return gone
