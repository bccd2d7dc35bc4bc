-- Starts the leases anew of what the consumer holds without knowing it: nothing has read the reply yet.
-- KEYS: stream. ARGV: group, consumer, the largest size of a reply, then the ids that it knows.
local known, unread = {}, {}
for i = 4, #ARGV do known[ARGV[i]] = true end
for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', #ARGV - 3 + ARGV[3], ARGV[2])) do
  if not known[entry[1]] then unread[#unread + 1] = entry[1] end
end
if #unread > 0 then
  unread[#unread + 1] = 'JUSTID'
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(unread))
end
return 1
