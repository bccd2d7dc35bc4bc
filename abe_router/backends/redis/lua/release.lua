-- Hands entries back as if they had never been delivered; an entry is its id. Returns the ids of those not
-- held.
-- KEYS: stream.
local held, _, refused = fence(held_now(), 1)
if #held > 0 then pass(':released', held, 'RETRYCOUNT', ARGV[3] - 1, 'JUSTID') end
return refused
