-- Counts failures of entries that their consumer keeps, as delivered once more; an entry is its id and the
-- milliseconds to the next attempt. Returns the ids of those not held.
-- KEYS: stream, failures, delayed.
local held, at, refused = fence(2)
local time = now()
for i, id in ipairs(held) do
  failed(id, time, time + ARGV[at[i] + 1])
  if #pass(ARGV[2], {id}, 'RETRYCOUNT', ARGV[3] + 1, 'JUSTID') == 0 then
    clear({id})
    refused[#refused + 1] = id
  end
end
return refused
