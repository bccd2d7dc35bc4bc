-- Deletes consumers that hold nothing: those idle for long enough, or the one that closes. A consumer that
-- holds entries stays, because Redis would delete its pending entries with it. Returns how many were deleted.
-- KEYS: stream. ARGV: group, milliseconds, the consumer that closes or nothing.
local reaped = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  local old = consumer.idle >= tonumber(ARGV[2]) and string.sub(consumer.name, 1, 1) ~= ':'
  if consumer.pending == 0 and (old or consumer.name == ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    reaped = reaped + 1
  end
end
return reaped
