-- Deletes consumers that hold nothing: those idle for long enough, or those that close. A consumer that
-- holds entries stays, because Redis would delete its pending entries with it. Returns how many were deleted.
-- KEYS: stream. ARGV: group, milliseconds, the consumers that close.
local reaped, closing = 0, {}
for i = 3, #ARGV do closing[ARGV[i]] = true end
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  local old = consumer.idle >= tonumber(ARGV[2]) and string.sub(consumer.name, 1, 1) ~= ':'
  if consumer.pending == 0 and (old or closing[consumer.name]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    reaped = reaped + 1
  end
end
return reaped
