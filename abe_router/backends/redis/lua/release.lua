-- Hands entries back as if they had never been delivered; an entry is its id. An entry that an exclusive handle
-- got before it was due stays delayed. Returns the ids of those not held.
-- KEYS: stream, delayed.
local held, _, refused = fence(1)
local time, back, early = now(), {}, {}
for _, id in ipairs(held) do
  local due = redis.call('ZSCORE', KEYS[2], id)
  local to = due and tonumber(due) > time and early or back
  to[#to + 1] = id
end
if #back > 0 then pass(':released', back, 'RETRYCOUNT', ARGV[3] - 1, 'JUSTID') end
if #early > 0 then pass(':delayed', early, 'RETRYCOUNT', ARGV[3] - 1, 'JUSTID') end
return refused
