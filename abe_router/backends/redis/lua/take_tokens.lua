-- Grants tokens at a rate: the generic cell rate algorithm, as in abe_router.backend.rate.
-- KEYS: until when the granted tokens are used up, in seconds. ARGV: rate a second, burst, wanted.
-- Returns how many are granted, and in how many microseconds there is another if none is.
local time = redis.call('TIME')
local at = time[1] + time[2] / 1000000
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local before = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
if before ~= before then before = 0 end -- another program wrote NaN
-- No more is owed than a full burst, whatever an earlier, lower rate or a clock set back has left behind.
local used_until = math.min(math.max(before, at), at + burst / rate)
local left = burst - (used_until - at) * rate
local granted = math.max(0, math.min(wanted, math.floor(left + 1e-9)))
if granted > 0 or used_until < before then
  used_until = used_until + granted / rate
  local kept = math.ceil((used_until - at) * 1000) + 1
  redis.call('SET', KEYS[1], string.format('%.6f', used_until), 'PX', kept)
end
if granted > 0 then
  return {granted, 0}
end
return {0, math.ceil((1 - left) / rate * 1000000)}
