-- How long a consumer may hold an entry without a sign of life, in milliseconds: what was handed back may be
-- taken at once, ours carry their lease in their name, and others get the one that is given.
local function idle(consumer, lease)
  return consumer == ':released' and 0 or string.match(consumer, '/lease=(%d+)$') or lease
end
