-- Appends messages of one stream in order, without those whose id is remembered. Returns the places of these.
-- KEYS: stream, ids. ARGV: how many ids may be forgotten, and of each message for how many milliseconds its id
-- is remembered, the id, the body, the time, and the headers, empty for none.
local at, passed_over = now(), {}
for i = 2, #ARGV, 5 do
  if not once(KEYS[1], KEYS[2], at, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) then
    passed_over[#passed_over + 1] = (i - 2) / 5
  end
end
forget(KEYS[2], at, ARGV[1])
return passed_over
