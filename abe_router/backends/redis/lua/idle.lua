-- For how many milliseconds a consumer may hold an entry without renewal. Released entries are free at
-- once. Our consumers carry their lease in their name; for others it is the given one.
local function idle(consumer, lease)
  return consumer == ':released' and 0 or string.match(consumer, '/lease=(%d+)$') or lease
end
